//go:build unix

package ticket

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMode refuses a file that others can get at.
func TestMode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state-key")
	if err := MakeKey(file); err != nil {
		t.Fatal(err)
	}
	link := file + "-link"
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for mode, good := range map[fs.FileMode]bool{
		0o600: true, 0o400: true, 0o440: true, 0o640: true,
		0o604: false, 0o602: false, 0o660: false, 0o620: false, 0o644: false, 0o444: false, 0o777: false,
	} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{file, link} {
			_, err := LoadKey(name)
			if good != (err == nil) {
				t.Errorf("mode %o: %v", mode, err)
			}
			if err != nil && !strings.Contains(err.Error(), "chmod 600 "+name) {
				t.Errorf("mode %o: %q does not say what to do", mode, err)
			}
		}
	}
}
