//go:build linux || darwin

package control

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The door is this user's alone while it is there, and leaves nothing behind.
func TestDoor(t *testing.T) {
	env := place(t)
	s, dir := serve(t, env, "a")
	path, err := readPointer(dir)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]os.FileMode{
		env.Folders[0]:                  os.ModeDir | 0o700,
		path:                            os.ModeSocket | 0o600,
		filepath.Join(dir, pointerName): 0o600,
	} {
		info, err := os.Lstat(file)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", file, info.Mode(), err, want)
		}
	}
	s.Close()
	for _, file := range []string{path, env.Folders[0], filepath.Join(dir, pointerName)} {
		if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind: %v", file, err)
		}
	}
}

// What a killed agent left is removed by the next one; what lives is not.
func TestStale(t *testing.T) {
	env := place(t)
	_, dir := serve(t, env, "alive")
	alive, err := readPointer(dir)
	if err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(env.Folders[0], "stale"+doorSuffix)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	r, err := env.Do(t.Context(), "", Request{Op: StatusOp})
	if err != nil || r.Status.ID != "alive" {
		t.Errorf("beside a stale socket: %+v, %v", r, err)
	}
	serve(t, env, "next")
	if _, err := os.Lstat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the stale socket is still there: %v", err)
	}
	if _, err := os.Lstat(alive); err != nil {
		t.Errorf("the other agent's socket is not: %v", err)
	}
}

// A folder that is not the user's own is not used; the next one is.
func TestFolders(t *testing.T) {
	good := place(t).Folders[0]
	bad := func(name string, prepare func(path string) error) string {
		path := place(t).Folders[0]
		if err := prepare(path); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return path
	}
	open := bad("open", func(path string) error {
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		return os.Chmod(path, 0o755)
	})
	link := bad("link", func(path string) error { return os.Symlink(t.TempDir(), path) })
	file := bad("file", func(path string) error { return os.WriteFile(path, nil, 0o600) })
	missing := filepath.Join(place(t).Folders[0], "parent", "door")
	long := filepath.Join(t.TempDir(), strings.Repeat("x", maxPath))
	for name, test := range map[string]struct{ folder, says string }{
		"open to others":   {open, "open to other users: run chmod 700"},
		"a symbolic link":  {link, "is not a folder"},
		"a file":           {file, "is not a folder"},
		"without a parent": {missing, "no such file"},
		"with a long path": {long, "is longer than 103 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := listen(t.TempDir(), nil, nil, Env{Folders: []string{test.folder}})
			if err == nil {
				s.Close()
				t.Fatal("it is used")
			}
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("it says %q", err)
			}
			env := Env{Folders: []string{test.folder, good}}
			serve(t, env, "a")
			if r, err := env.Do(t.Context(), "", Request{Op: StatusOp}); err != nil || r.Status.ID != "a" {
				t.Errorf("in the next folder: %+v, %v", r, err)
			}
		})
	}
}

// Without a folder that the pointer could be written to there is no door.
func TestNoAgentDir(t *testing.T) {
	env := place(t)
	if s, err := listen(filepath.Join(t.TempDir(), "none"), nil, nil, env); err == nil {
		s.Close()
		t.Error("it listens")
	}
	if left, _ := filepath.Glob(filepath.Join(env.Folders[0], "*")); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestAdmits(t *testing.T) {
	for _, test := range []struct {
		uid, me int
		want    bool
	}{{0, 0, true}, {1000, 1000, true}, {0, 1000, true}, {1000, 0, false}, {1001, 1000, false}, {-1, 1000, false}} {
		if got := admits(test.uid, test.me); got != test.want {
			t.Errorf("user %d at %d's door: %v", test.uid, test.me, got)
		}
	}
}

func TestDefaultFolders(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	if list := folders(); list[0] != "/run/user/7/converge" || len(list) < 2 {
		t.Errorf("%q", list)
	}
	t.Setenv("XDG_RUNTIME_DIR", "relative")
	t.Setenv("TMPDIR", "/var/tmp")
	if list := folders(); len(list) != 2 || filepath.Dir(list[0]) != "/var/tmp" || filepath.Dir(list[1]) != "/tmp" {
		t.Errorf("%q", list)
	}
	t.Setenv("CONVERGE_AGENTDIR", "/x")
	if env := Environment(); env.AgentDir != "/x" || len(env.Folders) != 2 {
		t.Errorf("%+v", env)
	}
}
