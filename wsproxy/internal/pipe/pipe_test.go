package pipe

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestWidenOthers has Widen leave alone what is no pipe.
func TestWidenOthers(t *testing.T) {
	Widen(nil)
	Widen(new(bytes.Buffer))
	name := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	Widen(f)
	if _, err := f.WriteString("still a file"); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	Widen(f) // and what is closed
	if got, err := os.ReadFile(name); string(got) != "still a file" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestOthersStay has In and Out give back what is no pipe.
func TestOthersStay(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if in, ok := In(f); ok || in != io.Reader(f) {
		t.Errorf("a file became %T", in)
	}
	var buffer bytes.Buffer
	if out, ok := Out(&buffer); ok || out != io.Writer(&buffer) {
		t.Errorf("a buffer became %T", out)
	}
}
