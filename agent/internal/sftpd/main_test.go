//go:build linux

package sftpd

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noise returns n random bytes, the same for the same seed.
func noise(n int, seed byte) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

// tree describes a folder and what is in it.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&list, name, info.Mode(), info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}

// output is a standard output.
type output struct{ bytes.Buffer }

func (*output) Close() error { return nil }

// The program serves its standard streams, and with -R nothing can be changed.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	mkdir := bytes.Join([][]byte{packet(fxpInit, 3), packet(14, 1, "made", 0)}, nil)
	for _, c := range []struct {
		args   []string
		input  []byte
		status int
		errs   string
		made   bool
	}{
		{nil, nil, 0, "", false},
		{[]string{"-R"}, mkdir, 0, "", false},
		{[]string{"-e"}, nil, 2, "unknown argument", false},
		{nil, []byte{0, 0, 0, 0, 0}, 1, "malformed", false},
		{nil, mkdir, 0, "", true},
	} {
		var out output
		var errs strings.Builder
		status := Run(c.args, io.NopCloser(bytes.NewReader(c.input)), &out, &errs)
		if status != c.status || !strings.Contains(errs.String(), c.errs) || (errs.Len() > 0) != (c.errs != "") {
			t.Errorf("%q %x: %d %q", c.args, c.input, status, errs.String())
		}
		if _, err := os.Stat("made"); (err == nil) != c.made {
			t.Errorf("%q: made: %v", c.args, err)
		}
		if c.status == 0 && len(c.input) > 0 && out.Len() == 0 {
			t.Errorf("%q: no answer", c.args)
		}
	}
}
