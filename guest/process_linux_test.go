package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"example.com/converge/pkg/watchtest"
)

// onTerminal runs a command on a terminal of its own, types, and returns all that the
// terminal showed, as bytes.
func onTerminal(t *testing.T, cmd *exec.Cmd, typed string) []byte {
	t.Helper()
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = terminal.Close() }()
	if _, err := io.WriteString(terminal, typed); err != nil {
		t.Fatal(err)
	}
	shown, err := io.ReadAll(terminal)
	if err != nil && !errors.Is(err, syscall.EIO) { // as Linux says that nobody is there
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %q", err, shown)
	}
	return shown
}

// TestNewlineInPid has process ids that contain the byte of a newline, for which a
// terminal would print two bytes. In a namespace one can choose them.
func TestNewlineInPid(t *testing.T) {
	pids := []int{10, 266, 2560, 2570, 2573, 2815, 3338} // all that Linux may be limited to, 32767
	var words []string
	want := &bytes.Buffer{}
	for _, pid := range pids {
		words = append(words, itoa(pid))
		want.Write([]byte{byte(pid), byte(pid >> 8), byte(pid >> 16), byte(pid >> 24)})
		// And the terminal is as it was.
		fmt.Fprintf(want, "%d\r\n", pid)
	}
	// dash forks for guest and for nothing else.
	script := `for n in ` + strings.Join(words, " ") + `; do
		echo $((n - 1)) >/proc/sys/kernel/ns_last_pid || exit
		"$0" console --pid -- /bin/sh -c 'echo $$'
	done; exit 0`
	if shown := onTerminal(t, namespaced(t, "/bin/sh", "-c", script, program), ""); !bytes.Equal(shown, want.Bytes()) {
		t.Errorf("the terminal showed\n%q, want\n%q", shown, want)
	}
}

// TestTerminal waits for a newline, since a terminal does not pass on a null before
// the end of its line.
func TestTerminal(t *testing.T) {
	cmd := command(t, "console", "--wait", "--pid", "--", "/bin/sh", "-c", "read line; echo got $line; stty -a | grep -o '^opost'")
	shown := onTerminal(t, cmd, "\nhello\n")
	pid := cmd.Process.Pid
	i := bytes.Index(shown, []byte{byte(pid), byte(pid >> 8), byte(pid >> 16), byte(pid >> 24)})
	if i < 0 || !bytes.Contains(shown[i:], []byte("got hello\r\nopost\r\n")) {
		t.Errorf("process %d showed %q", pid, shown)
	}
}

// TestConsoleAsInit is the first process of a container.
func TestConsoleAsInit(t *testing.T) {
	got := run(t, namespaced(t, program, "console", "--wait", "--pid", "--", "/bin/sh", "-c", "echo $$; exit 3"), "\x00")
	got.want(t, "\x01\x00\x00\x001\n", 3, "")
}

// process is what /proc says of one.
type process struct {
	pid, parent int
	state       string
}

// processes lists those whose parent is given.
func processes(t *testing.T, parent int) []process {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var list []process
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may contain anything.
		rest := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if ppid, _ := strconv.Atoi(rest[1]); ppid == parent {
			list = append(list, process{pid, ppid, rest[0]})
		}
	}
	return list
}

// TestIdleInit is the idle command of a container: as process 1 it reaps the orphans
// of all others, and minds no signal but its own.
func TestIdleInit(t *testing.T) {
	cmd := namespaced(t, program, "wait-signal", "--signal", "INT", "--signal", "TERM", "--message", "bye")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := 0
	watchtest.Eventually(t, "process 1", func() bool {
		for _, p := range processes(t, cmd.Process.Pid) {
			exe, _ := os.Readlink("/proc/" + itoa(p.pid) + "/exe")
			if exe == program {
				first = p.pid
			}
		}
		return first != 0
	})
	enter := []string{"--target", itoa(first), "--pid", "--mount"}
	if os.Geteuid() != 0 {
		enter = append(enter, "--user", "--preserve-credentials")
	}
	// A shell that leaves a thousand orphans behind, each of which ends.
	got := run(t, limited(t, "nsenter", append(enter, "/bin/sh", "-c",
		`i=0; while [ $i -lt 1000 ]; do ( ( exit 3 ) & ); i=$((i + 1)); done; echo done`)...), "")
	got.want(t, "done\n", 0, "")
	watchtest.Eventually(t, "all orphans are reaped", func() bool { return len(processes(t, first)) == 0 })

	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGPIPE, syscall.SIGALRM} {
		if err := syscall.Kill(first, sig); err != nil {
			t.Fatal(err)
		}
	}
	// It is still there, and reaps.
	run(t, limited(t, "nsenter", append(enter, "/bin/sh", "-c", `( ( exit 3 ) & )`)...), "").want(t, "", 0, "")
	watchtest.Eventually(t, "it is reaped, too", func() bool { return len(processes(t, first)) == 0 })
	if err := syscall.Kill(first, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || out.String() != "bye" {
		t.Errorf("it ended with %v and said %q", err, &out)
	}
}

// catches reports whether a process has a handler for a signal.
func catches(t *testing.T, pid int, sig syscall.Signal) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/" + itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "SigCgt:")
	mask, err := strconv.ParseUint(strings.Fields(after)[0], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return mask&(1<<(sig-1)) != 0
}

// TestWaitSignal is not process 1.
func TestWaitSignal(t *testing.T) {
	for name, args := range map[string][]string{"": {"--signal", "USR1"}, "a b\n": {"--message", "a b\n", "--signal", "HUP", "--signal", "USR1"}} {
		cmd := command(t, append([]string{"wait-signal"}, args...)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waited := make(chan error, 1)
		go func() { waited <- cmd.Wait() }()
		// Before Go has begun in there USR1 would kill, and then it is ignored until
		// somebody waits for it.
		watchtest.Eventually(t, "it handles signals", func() bool { return catches(t, cmd.Process.Pid, syscall.SIGUSR1) })
		ticker := time.NewTicker(10 * time.Millisecond)
		for done := false; !done; {
			_ = cmd.Process.Signal(syscall.SIGUSR1)
			select {
			case err := <-waited:
				if done = true; err != nil || out.String() != name {
					t.Errorf("it ended with %v and printed %q, want %q", err, &out, name)
				}
			case <-ticker.C:
			}
		}
		ticker.Stop()
	}
}

func TestSignal(t *testing.T) {
	names := map[string]syscall.Signal{
		"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP, "ILL": syscall.SIGILL,
		"INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE, "QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV,
		"TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	}
	for name, sig := range names {
		child := limited(t, "cat")
		// In a group of its own, for --group.
		child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		stdin, err := child.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		run(t, command(t, "signal", "--signal", name, "--pid", itoa(child.Process.Pid)), "").want(t, "", 0, "")
		_ = child.Wait()
		_ = stdin.Close()
		if status := child.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != sig {
			t.Errorf("%s: the child ended by %v", name, status)
		}
		// Nobody has the number now.
		run(t, command(t, "signal", "--signal", name, "--pid", itoa(child.Process.Pid)), "").want(t, "", 2, "process not found (")
		run(t, command(t, "signal", "--signal", name, "--pid", itoa(child.Process.Pid), "--group"), "").want(t, "", 2, "process group not found (")
	}
	// Nobody may send to the first process of the machine, but root.
	cmd := command(t, "signal", "--pid", "1", "--signal", "HUP")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	run(t, cmd, "").want(t, "", 3, "failed to send signal (operation not permitted)")
}

func TestSignalGroup(t *testing.T) {
	shell := limited(t, "/bin/sh", "-c", "cat & echo started; wait")
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Both hold the output.
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, keep, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keep.Close() }()
	shell.Stdin = in
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); line != "started\n" {
		t.Fatalf("it printed %q, %v", line, err)
	}
	run(t, command(t, "signal", "--group", "--pid", itoa(shell.Process.Pid), "--signal", "TERM"), "").want(t, "", 0, "")
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("read %q, %v", rest, err)
	}
	_ = shell.Wait()
}

// TestTerminated leaves no socket behind.
func TestTerminated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	f := forward(t, setup{ConnectionType: socketForward, BindHost: path, Protocol: "unix"})
	if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	f.ends(0, "")
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
}

// TestWriteMounted: what is mounted by itself, as engines do with /etc/hosts, cannot
// be replaced.
func TestWriteMounted(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "hosts")
	if err := os.WriteFile(file, []byte("a long old content"), 0o644); err != nil {
		t.Fatal(err)
	}
	options := []string{"--mount"}
	if os.Geteuid() != 0 {
		options = append(options, "--user", "--map-root-user")
	}
	cmd := limited(t, "unshare", append(options, "/bin/sh", "-c", `mount --bind "$1" "$1" && exec "$0" write-file "$1"`, program, file)...)
	run(t, cmd, "new").want(t, "", 0, "")
	if got, err := os.ReadFile(file); err != nil || string(got) != "new" {
		t.Errorf("it has %q, %v", got, err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 1 {
		t.Errorf("there are %v, %v", left, err)
	}
}

// TestWriteMountedFull: where there is no room for the new content, the old one is
// there again.
func TestWriteMountedFull(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "hosts")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	options := []string{"--mount"}
	if os.Geteuid() != 0 {
		options = append(options, "--user", "--map-root-user")
	}
	cmd := limited(t, "unshare", append(options, "/bin/sh", "-c", `mount -t tmpfs -o size=64k tmpfs /mnt && echo old >/mnt/f &&
		mount --bind /mnt/f "$1" && ! "$0" write-file "$1" && cat "$1" && ls -A "$(dirname "$1")"`, program, file)...)
	run(t, cmd, strings.Repeat("x", 200<<10)).want(t, "old\nhosts\n", 0, "no space left")
}
