//go:build linux

package host

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFindShell(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		wanted, inEnv, inProcess, want string
	}{
		"asked for":           {"/bin/sh", "/bin/bash", "/bin/bash", "/bin/sh"},
		"of the environment":  {"", "/bin/sh", "/bin/bash", "/bin/sh"},
		"of the process":      {"", "", "/bin/sh", "/bin/sh"},
		"not there":           {"", "/opt/no/zsh", "/bin/sh", "/bin/sh"},
		"of a service":        {"", "/bin/false", "/usr/sbin/nologin", "/bin/bash"},
		"no program":          {"", plain, "", "/bin/bash"},
		"none":                {"", "", "", "/bin/bash"},
		"asked for a mistake": {plain, "", "", ""},
		"relative":            {"bash", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SHELL", test.inProcess)
			got, err := findShell(test.wanted, []string{"SHELL=/not/this", "SHELL=" + test.inEnv})
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("%q %v, want %q", got, err, test.want)
			}
		})
	}
}
