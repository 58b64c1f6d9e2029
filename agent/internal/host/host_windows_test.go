package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindShell(t *testing.T) {
	cmd := os.Getenv("ComSpec")
	for _, test := range []struct {
		wanted string
		env    []string
	}{
		{wanted: cmd}, {wanted: "cmd"},
		{env: []string{"comspec=" + cmd}},
		{env: []string{"SHELL=/usr/bin/bash", "ComSpec=" + cmd}},
		{},
	} {
		got, err := findShell(test.wanted, test.env)
		if err != nil || !filepath.IsAbs(got) || !strings.EqualFold(filepath.Base(got), "cmd.exe") {
			t.Errorf("%q %q: got %q, %v", test.wanted, test.env, got, err)
		}
	}
	if got, err := findShell(`C:\missing\shell.exe`, nil); err == nil {
		t.Errorf("a shell that is not there is %q", got)
	}
}
