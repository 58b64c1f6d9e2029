//go:build unix

package access

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.com/converge/pkg/files"
)

// TestPipe: what comes by a pipe, as from <(command), holds on, and a pipe in the
// place of a file is a mistake that nobody waits for.
func TestPipe(t *testing.T) {
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	token, line, err := MakeToken("ci", []Role{Agent}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(pipe, []byte(line), 0o600) }()
	piped, err := Open(Config{Tokens: pipe})
	if err := errors.Join(err, <-written); err != nil {
		t.Fatal(err)
	}
	good := func(g *Guard) bool {
		_, err := g.Admit(t.Context(), Request{Role: Agent, ID: "job", Authorization: "Bearer " + token})
		return err == nil
	}
	piped.Reload()
	if _, problem := piped.State(); problem != "" || !good(piped) {
		t.Errorf("what came by a pipe is gone: %q", problem)
	}
	if _, err := Open(Config{Tokens: pipe, Former: piped}); err != nil {
		t.Errorf("it could not be used again: %v", err)
	}

	g, err := Open(Config{Tokens: file})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Use(pipe, ""); !errors.Is(err, files.ErrNotRegular) {
		t.Errorf("another one, which is a pipe: %v", err)
	}
	if err := os.Rename(pipe, file); err != nil {
		t.Fatal(err)
	}
	g.Reload()
	if _, problem := g.State(); !strings.Contains(problem, "it is no regular file") || !good(g) {
		t.Errorf("a pipe in its place: %q", problem)
	}
	if _, err := Open(Config{Tokens: file, Former: g}); !errors.Is(err, files.ErrNotRegular) {
		t.Errorf("a look whether it could be used: %v", err)
	}
}
