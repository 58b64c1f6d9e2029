//go:build linux

package host

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A folder that is too deep for a socket is passed over.
func TestPrivateDir(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()+"/"+strings.Repeat("x", 100))
	dir, err := privateDir()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if !strings.HasPrefix(dir, "/tmp/converge-") {
		t.Errorf("%q", dir)
	}
}
