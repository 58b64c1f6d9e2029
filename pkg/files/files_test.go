package files

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	const limit = 2 << 10
	file := filepath.Join(t.TempDir(), "file")
	for _, size := range []int{0, 1, limit} {
		want := bytes.Repeat([]byte("x"), size)
		if err := os.WriteFile(file, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(file, limit); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
	}
	if err := os.WriteFile(file, make([]byte, limit+1), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Read(file, limit)
	if got != nil || !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), file+" is larger than 2 KiB") {
		t.Errorf("one byte too many: %d bytes, %v", len(got), err)
	}
	if _, err := Read(file+"x", limit); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Read(filepath.Dir(file), limit); err == nil {
		t.Error("a folder was read")
	}
	if _, err := ReadRegular(filepath.Dir(file), limit); !errors.Is(err, ErrNotRegular) {
		t.Errorf("a folder as a regular file: %v", err)
	}
	if _, err := ReadRegular(file+"x", limit); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no regular file: %v", err)
	}
	if _, err := ReadRegular(file, limit+1); err != nil {
		t.Errorf("a regular file: %v", err)
	}
}
