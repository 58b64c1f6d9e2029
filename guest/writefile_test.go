//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteFile(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	check := func(want string) {
		t.Helper()
		got, err := os.ReadFile(file)
		if err != nil || string(got) != want {
			t.Errorf("it has %d bytes, %v, want %d", len(got), err, len(want))
		}
		info, err := os.Stat(file)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("it is %v, %v", info.Mode(), err)
		}
	}
	for _, content := range []string{strings.Repeat("x\x00y", 1<<20), "", "short"} {
		if err := os.Chmod(file, 0o644); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		run(t, command(t, "write-file", file), content).want(t, "", 0, "")
		check(content)
	}
	link := filepath.Join(folder, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	run(t, command(t, "write-file", link), "by the link").want(t, "", 0, "")
	check("by the link")
	if to, err := os.Readlink(link); err != nil || to != "file" {
		t.Errorf("the link leads to %q, %v", to, err)
	}

	// A path through links to folders is the kernel's to read.
	deep := filepath.Join(t.TempDir(), "deep")
	if err := os.MkdirAll(filepath.Join(deep, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(filepath.Dir(deep), "in")
	for _, step := range []error{
		os.Symlink(filepath.Join(deep, "in"), beside),
		os.Symlink("../target", filepath.Join(deep, "in", "up")),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	for _, path := range []string{beside + "/up", beside + "/../target"} {
		run(t, command(t, "write-file", path), path).want(t, "", 0, "")
		if got, err := os.ReadFile(filepath.Join(deep, "target")); err != nil || string(got) != path {
			t.Errorf("write to %s: %q, %v", path, got, err)
		}
	}

	// Input that cannot be read leaves what is there.
	cmd := command(t, "write-file", file)
	unreadable, err := os.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unreadable.Close() }()
	cmd.Stdin = unreadable
	run(t, cmd, "").want(t, "", 1, "is a directory")
	check("by the link")

	run(t, command(t, "write-file", folder), "x").want(t, "", 1, "not a regular file")
	run(t, command(t, "write-file", "/dev/null"), "x").want(t, "", 1, "not a regular file")
	run(t, command(t, "write-file", filepath.Join(folder, "no", "file")), "x").want(t, "", 1, "no such file")
	run(t, command(t, "write-file", ""), "x").want(t, "", 1, "takes one argument")
	loop := filepath.Join(folder, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	run(t, command(t, "write-file", loop), "x").want(t, "", 1, "too many symbolic links")

	left, err := os.ReadDir(folder)
	if err != nil || len(left) != 3 {
		t.Errorf("there are %v, %v: want file, link and loop", left, err)
	}
}
