package ticket

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestMakeKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state-key")
	if err := MakeKey(file); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", info.Mode(), err)
	}
	key, err := LoadKey(file)
	if err != nil || len(key) != MinKey || bytes.Equal(key, make([]byte, MinKey)) {
		t.Errorf("%x, %v", key, err)
	}
	// It is never overwritten.
	if err := MakeKey(file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("once more: %v", err)
	}
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, first) {
		t.Errorf("it has changed, or %v", err)
	}
	other := filepath.Join(t.TempDir(), "state-key")
	if err := MakeKey(other); err != nil {
		t.Fatal(err)
	}
	if second, err := LoadKey(other); err != nil || bytes.Equal(key, second) {
		t.Errorf("two keys are one, or %v", err)
	}
	if err := MakeKey(filepath.Join(other, "x")); err == nil {
		t.Error("a key was made in a file")
	}
}

// TestKeyText shows what may stand in the file.
func TestKeyText(t *testing.T) {
	key := bytes.Repeat([]byte{0xfb, 0xff}, 20)
	std, url := base64.StdEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(key)
	short := base64.StdEncoding.EncodeToString(key[:MinKey-1])
	for text, want := range map[string]string{
		std:                           "",
		url:                           "",
		url + "\r\n":                  "",
		"# x\n\n  " + std + "  \n#\n": "",
		base64.StdEncoding.EncodeToString(key[:MinKey]): "",

		"":                        "it is empty",
		"# only a comment\n":      "it is empty",
		short:                     "it has 31 bytes, and needs 32",
		"secret word":             "its line is not base64",
		std + "\n" + std:          "more than one line",
		strings.Repeat("A", 4097): "more than 4 KiB",
	} {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := LoadKey(file)
		switch {
		case want == "":
			if err != nil || !bytes.HasPrefix(key, got) || len(got) < MinKey {
				t.Errorf("%q: %x, %v", text, got, err)
			}
		case err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "server --make-state-key"):
			t.Errorf("%q: %v, want %q", text, err, want)
		case strings.Contains(err.Error(), "secret"):
			t.Errorf("the error quotes the file: %v", err)
		}
	}
	file := filepath.Join(t.TempDir(), "none")
	if _, err := LoadKey(file); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "make it with server --make-state-key "+file) {
		t.Errorf("no file: %v", err)
	}
	if _, err := LoadKey(t.TempDir()); err == nil || runtime.GOOS != "windows" && !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
}
