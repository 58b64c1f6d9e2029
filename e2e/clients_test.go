package e2e

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"example.com/converge/pkg/watchtest"
)

// zoo is an agent, and what the clients that people have need to reach it.
type zoo struct {
	*agent
	id identity
	// config is a file for ssh, by way of wsproxy: ssh -F config abc@job.
	config string
	// port is tcptows's, for clients that know nothing of proxies.
	port string
	// here is a folder on this side.
	here string
}

func newZoo(t *testing.T) *zoo {
	t.Helper()
	s, id := startServer(t), newIdentity(t)
	z := &zoo{agent: startAgent(t, s, id), id: id, here: t.TempDir()}
	z.config = z.write(t, "config", `Host job
	HostName localhost
	User abc
	ProxyCommand `+tool("wsproxy")+" "+z.url+`
	IdentityFile `+id.file+`
	IdentitiesOnly yes
	BatchMode yes
	StrictHostKeyChecking no
	UserKnownHostsFile /dev/null
	LogLevel ERROR
`)
	p := start(t, nil, tool("tcptows"), "0", z.url)
	z.port = p.out.Await(t, `listening on 127\.0\.0\.1:(\d+)`, 1)[1]
	return z
}

// write makes a file on this side.
func (z *zoo) write(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(z.here, name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// ssh runs ssh with the configuration.
func (z *zoo) ssh(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	return runCommand(t, stdin, "ssh", append([]string{"-F", z.config}, args...)...)
}

// tree makes a folder with files and links, and returns its name.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"plain": "text\n", "empty": "", "a name with spaces": "x", "ümläut": "y",
		"deep/er/file": strings.Repeat("0123456789abcdef", 1<<14), "deep/run.sh": "#!/bin/sh\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "deep/run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("er/file", filepath.Join(dir, "deep/link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// list describes all that is below a folder.
func list(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		name, _ := filepath.Rel(dir, file)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s", name, info.Mode())
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(file)
			fmt.Fprintf(&b, " -> %s", target)
		case info.Mode().IsRegular():
			fmt.Fprintf(&b, " %s", fileSum(t, file))
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// sameTree fails the test unless both folders hold the same.
func sameTree(t *testing.T, got, want string) {
	t.Helper()
	if g, w := list(t, got), list(t, want); g != w {
		t.Errorf("got\n%swant\n%s", g, w)
	}
}

// TestClients uses an agent with the clients that people have.
func TestClients(t *testing.T) {
	z := newZoo(t)
	for name, test := range map[string]func(*testing.T, *zoo){
		"rsync": tryRsync, "git": tryGit, "tar": tryTar, "sshfs": trySSHFS, "lftp": tryLftp,
		"multiplexing": tryMultiplexing, "editor": tryEditor,
		"curl": tryCurl, "plink": tryPlink, "psftp": tryPsftp, "dbclient": tryDbclient,
		"paramiko": tryParamiko, "libssh": tryLibssh,
	} {
		t.Run(name, func(t *testing.T) { test(t, z) })
	}
}

func tryRsync(t *testing.T, z *zoo) {
	from, far, back := tree(t), t.TempDir(), t.TempDir()
	args := []string{"-a", "--delete", "--stats", "-e", "ssh -F " + z.config}
	runCommand(t, nil, "rsync", append(args, from+"/", "job:"+far+"/")...).must(t)
	sameTree(t, far, from)
	// Only what has changed goes over.
	if err := os.Remove(filepath.Join(from, "plain")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "empty"), []byte("no longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := runCommand(t, nil, "rsync", append(args, from+"/", "job:"+far+"/")...).must(t)
	if !strings.Contains(r.stdout, "Number of regular files transferred: 1\n") {
		t.Errorf("rsync said %s", r.stdout)
	}
	sameTree(t, far, from)
	runCommand(t, nil, "rsync", append(args, "job:"+far+"/", back+"/")...).must(t)
	sameTree(t, back, from)
}

func tryGit(t *testing.T, z *zoo) {
	from, far, back := tree(t), filepath.Join(t.TempDir(), "repo.git"), filepath.Join(t.TempDir(), "clone")
	git := func(args ...string) result {
		t.Helper()
		all := append([]string{
			"GIT_SSH_COMMAND=ssh -F " + z.config, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "git",
			"-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main", "-c", "protocol.version=2",
		}, args...)
		return runCommand(t, nil, "env", all...).must(t)
	}
	z.ssh(t, nil, "job", "git init -q --bare "+far).must(t)
	git("-C", from, "init", "-q")
	git("-C", from, "add", ".")
	git("-C", from, "commit", "-q", "-m", "one")
	git("-C", from, "push", "-q", "ssh://job"+far, "main")
	git("clone", "-q", "-b", "main", "job:"+far, back)
	if err := os.RemoveAll(filepath.Join(back, ".git")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(from, ".git")); err != nil {
		t.Fatal(err)
	}
	sameTree(t, back, from)
}

func tryTar(t *testing.T, z *zoo) {
	from, far, back := tree(t), t.TempDir(), t.TempDir()
	shell(t, nil, fmt.Sprintf("tar -C %s -cf - . | ssh -F %s job tar -C %s -xf -", from, z.config, far)).must(t)
	sameTree(t, far, from)
	shell(t, nil, fmt.Sprintf("ssh -F %s job tar -C %s -czf - . | tar -C %s -xzf -", z.config, far, back)).must(t)
	sameTree(t, back, from)
}

func trySSHFS(t *testing.T, z *zoo) {
	from, far, mount := tree(t), t.TempDir(), t.TempDir()
	p := start(t, nil, "sshfs", "-f", "-F", z.config, "job:"+far, mount)
	t.Cleanup(func() { _ = exec.Command("fusermount3", "-u", "-z", mount).Run() })
	mounted := regexp.MustCompile(` ` + regexp.QuoteMeta(mount) + ` fuse\.sshfs `)
	watchtest.Eventually(t, "mount", func() bool {
		select {
		case <-p.done:
			t.Fatalf("sshfs ended:\n%s", p.out)
		default:
		}
		mounts, err := os.ReadFile("/proc/mounts")
		return err == nil && mounted.Match(mounts)
	})
	// Not -a: sshfs changes owner and time of a link by way of what it leads
	// to, which need not be there yet.
	runCommand(t, nil, "cp", "-dR", from+"/.", mount).must(t)
	sameTree(t, far, from)
	for _, line := range []string{
		"dd if=deep/er/file of=synced bs=64k conv=fsync status=none && cmp synced deep/er/file",
		"mv synced renamed && test ! -e synced && cp plain plain2 && mv plain renamed && mv plain2 plain", // over an existing one
		"rm renamed && mkdir x && rmdir x && truncate -s 3 empty && truncate -s 0 empty",
		"chmod 600 plain && test $(stat -c %a plain) = 600 && chmod 644 plain",
		"touch -d 2001-02-03 plain && test $(date -r plain +%Y) = 2001",
		"df . >/dev/null && test $(ls | wc -l) = 5 && readlink deep/link",
	} {
		shell(t, nil, "cd "+mount+" && "+line).must(t)
	}
	sameTree(t, far, from)
	runCommand(t, nil, "fusermount3", "-u", mount).must(t)
	if code := p.wait(t); code != 0 {
		t.Errorf("sshfs ended with %d:\n%s", code, p.out)
	}
}

func tryLftp(t *testing.T, z *zoo) {
	from, far, back := tree(t), t.TempDir(), t.TempDir()
	script := z.write(t, "lftp", fmt.Sprintf(`set cmd:fail-exit yes
set net:max-retries 1
set sftp:connect-program "ssh -a -x -F %s"
open sftp://job
mirror --reverse --parallel=3 "%s" "%s/copy"
cd "%[3]s/copy"
mv plain moved
mv moved plain
chmod 0600 plain
chmod 0644 plain
mirror --parallel=3 . "%[4]s/copy"
rm empty
bye
`, z.config, from, far, back))
	runCommand(t, nil, "env", "HOME="+z.here, "LFTP_HOME="+z.here, "lftp", "-f", script).must(t)
	sameTree(t, filepath.Join(back, "copy"), from)
	if _, err := os.Stat(filepath.Join(far, "copy", "empty")); !os.IsNotExist(err) {
		t.Errorf("a removed file is there: %v", err)
	}
}

// tryMultiplexing is how Ansible uses ssh: one connection that stays, a session
// of its own for each step, modules through stdin, files by sftp.
func tryMultiplexing(t *testing.T, z *zoo) {
	// Not in the test's folder, whose name may be too long for a socket.
	dir, err := os.MkdirTemp("", "mux")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	control := []string{"-oControlMaster=auto", "-oControlPersist=60s", "-oControlPath=" + filepath.Join(dir, "%C")}
	ssh := func(stdin io.Reader, args ...string) result {
		return z.ssh(t, stdin, append(append([]string{}, control...), args...)...)
	}
	logins := func() int { return strings.Count(z.out.String(), "logged in from") }
	before := logins()
	ssh(nil, "-n", "job", "true").must(t)
	t.Cleanup(func() { ssh(nil, "-O", "exit", "job") })
	var steps sync.WaitGroup
	for i := range 8 {
		steps.Go(func() {
			code := fmt.Sprintf("import sys; print('step %d'); sys.exit(%d)", i, i)
			r := ssh(strings.NewReader(code), "job", "/bin/sh", "-c", "'/usr/bin/python3 && sleep 0'")
			if r.stdout != fmt.Sprintf("step %d\n", i) || r.code != i {
				t.Errorf("step %d: %+v", i, r)
			}
		})
	}
	steps.Wait()
	file, sum := randomFile(t, 1<<20)
	far := t.TempDir()
	args := append([]string{"-F", z.config, "-b", "-"}, control...)
	runCommand(t, strings.NewReader("put "+file+" "+far+"/module\n"), "sftp", append(args, "job")...).must(t)
	if fileSum(t, filepath.Join(far, "module")) != sum {
		t.Error("the file has changed on its way")
	}
	r := ssh(nil, "-tt", "job", "test -t 0 && tty").must(t)
	if !strings.HasPrefix(r.stdout, "/dev/pts/") {
		t.Errorf("tty said %q", r.stdout)
	}
	if n := logins() - before; n != 1 {
		t.Errorf("%d logins, want one", n)
	}
	ssh(nil, "-O", "exit", "job").must(t)
}

// tryEditor is how VS Code works: a shell that takes scripts on stdin for as
// long as the editor is open, and on the same connection a SOCKS port by which
// the editor reaches the server that it has started over there.
func tryEditor(t *testing.T, z *zoo) {
	far := tree(t)
	socks := freePort(t)
	out := &watchtest.Output{}
	cmd := exec.Command("ssh", "-F", z.config, "-T", "-D", socks, "-oExitOnForwardFailure=yes", "job", "bash")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	say := func(line string) {
		t.Helper()
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	say("echo agent ready; cd " + far)
	out.Await(t, "agent ready", 1)
	say("/usr/bin/python3 -u -m http.server --bind 127.0.0.1 0 & server=$!")
	port := out.Await(t, `port (\d+)`, 1)[1]
	var windows sync.WaitGroup
	for i := range 12 {
		windows.Go(func() {
			r := runCommand(t, nil, "curl", "-q", "-sS", "--fail", "--noproxy", "", "--socks5-hostname", socks,
				"http://localhost:"+port+"/deep/er/file")
			if r.code != 0 || len(r.stdout) != 16<<14 {
				t.Errorf("window %d: exit code %d, %d bytes, %s", i, r.code, len(r.stdout), r.stderr)
			}
		})
		say(fmt.Sprintf("echo still %d", i))
	}
	windows.Wait()
	out.Await(t, "still 11", 1)
	say("kill $server; wait; exit 9")
	in.Close()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("ssh ended with %d:\n%s", code, out)
	}
}

// freePort returns an address of this machine that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// contains fails the test unless all words are in what a client has said.
func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !bytes.Contains([]byte(text), []byte(word)) {
			t.Errorf("no %q in\n%s", word, text)
		}
	}
}
