//go:build linux

package sshd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sftp runs OpenSSH's sftp with a batch of commands.
func (b *bench) sftp(args []string, commands ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	batch := b.write("batch", []byte(strings.Join(commands, "\n")+"\n"))
	cmd := b.client("sftp", nil, append(append([]string{"-b", batch}, args...), testUser+"@127.0.0.1")...)
	return run(b.t, cmd)
}

// put puts a file in the server's folder.
func (b *bench) put(name string, text []byte, mode os.FileMode) string {
	b.t.Helper()
	name = filepath.Join(b.dir, name)
	if err := os.WriteFile(name, text, mode); err != nil {
		b.t.Fatal(err)
	}
	return name
}

// What stock sftp can ask for is done, and the client learns the limits.
func TestOpenSSHSFTPOperations(t *testing.T) {
	b := newBench(t, nil)
	old := b.put("old", []byte("text\n"), 0o644)
	if err := os.Mkdir(filepath.Join(b.dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.write("new", noise(3<<20, 5))
	stdout, stderr, code := b.sftp([]string{"-vvv"},
		"ln old hard", "ln -s old soft", "ln -s ../old sub/up", "ln -s "+old+" absolute",
		"put -f new flushed", "rename flushed moved", "put new moved2", "rename moved2 moved",
		"chmod 4711 moved", "ls -l moved", "ls -l sub", "df", "df -h sub", "chmod 600 soft", "mkdir d", "rmdir d")
	if code != 0 {
		t.Fatalf("%d %q %s", code, stdout, stderr)
	}
	defer func() {
		if t.Failed() {
			t.Log(stderr)
		}
	}()
	for _, want := range []string{
		`extension "limits@openssh.com" revision 1`, `extension "fsync@openssh.com" revision 1`,
		`extension "statvfs@openssh.com" revision 2`, `extension "posix-rename@openssh.com" revision 1`,
		`extension "hardlink@openssh.com" revision 1`,
		"upload/download buffer sizes 261120 / 261120", "Sending SSH2_FXP_EXTENDED(fsync@openssh.com)",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q", want)
		}
	}
	for name, want := range map[string]string{"soft": "old", "sub/up": "../old", "absolute": old} {
		if got, err := os.Readlink(filepath.Join(b.dir, name)); err != nil || got != want {
			t.Errorf("link %s: %q %v", name, got, err)
		}
	}
	info := func(name string) os.FileInfo {
		i, err := os.Lstat(filepath.Join(b.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	if !os.SameFile(info("old"), info("hard")) {
		t.Error("the hard link is another file")
	}
	if got := info("moved").Mode(); got != 0o711|os.ModeSetuid {
		t.Errorf("chmod: %v", got)
	}
	if got := info("old").Mode(); got != 0o600 {
		t.Errorf("chmod through a link: %v", got)
	}
	got, err := os.ReadFile(filepath.Join(b.dir, "moved"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "moved", got, noise(3<<20, 5))
	for _, want := range []string{
		`-rws--x--x +\S+ \S+ +\S+ +3145728 .*moved`, `lrwxrwxrwx +1 .* up`,
		`Size +Used +Avail +\(root\) +%Capacity\n +\d+ +\d+ +\d+ +\d+ +\d+%`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("no %q in %q", want, stdout)
		}
	}
}

// An interrupted transfer goes on where it ended.
func TestOpenSSHSFTPResume(t *testing.T) {
	b := newBench(t, nil)
	text := noise(5<<20+123, 6)
	b.put("far", text, 0o644)
	b.put("up", text[:1<<20+7], 0o644)
	b.write("near", text)
	b.write("down", text[:2<<20+1])
	_, stderr, code := b.sftp(nil, "reget far down", "reput near up")
	if code != 0 {
		t.Fatalf("%d %s", code, stderr)
	}
	for _, name := range []string{filepath.Join(b.home, "down"), filepath.Join(b.dir, "up")} {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		same(t, name, got, text)
	}
}

// Nothing can be changed where files are read-only, and all can be read.
func TestOpenSSHSFTPReadOnly(t *testing.T) {
	b := newBench(t, func(c *Config) { c.ReadOnlySFTP = true })
	big := noise(1<<20, 7)
	b.put("file", big, 0o644)
	if err := os.Mkdir(filepath.Join(b.dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.put("empty", nil, 0o644)
	b.write("mine", []byte("mine"))
	before := tree(t, b.dir)
	for _, command := range []string{
		"put mine new", "put mine file", "reput mine empty", "rm file", "rename file new", "mkdir new", "rmdir sub",
		"ln file new", "ln -s file new", "chmod 600 file", "chown 1 file", "put -f mine new",
	} {
		if stdout, stderr, code := b.sftp(nil, command); code == 0 || !strings.Contains(stderr, "denied") {
			t.Errorf("%s: %d %q %q", command, code, stdout, stderr)
		}
	}
	if after := tree(t, b.dir); after != before {
		t.Errorf("the folder has changed:\n%s\n%s", before, after)
	}
	if _, stderr, code := b.sftp(nil, "get file", "ls -l", "df"); code != 0 {
		t.Fatalf("%d %s", code, stderr)
	}
	got, err := os.ReadFile(filepath.Join(b.home, "file"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "get", got, big)
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
