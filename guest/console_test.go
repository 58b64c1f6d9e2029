//go:build unix

package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// split takes the process id off what console printed.
func split(t *testing.T, stdout string) (pid int, rest string) {
	t.Helper()
	if len(stdout) < 4 {
		t.Fatalf("it printed %q, which has no process id", stdout)
	}
	return int(binary.LittleEndian.Uint32([]byte(stdout))), stdout[4:]
}

// TestDocumentedLines are those of the original's documents.
func TestDocumentedLines(t *testing.T) {
	cmd := limited(t, agent, "console", "--env", "FOO=bar", "--env", "TERM=xterm", "--wait", "--pid", "--", "/bin/bash")
	got := run(t, cmd, "\x00echo $$ $FOO $TERM\n")
	pid, rest := split(t, got.stdout)
	if pid != cmd.Process.Pid || rest != fields(pid, "bar", "xterm") || got.code != 0 {
		t.Errorf("process %d: %+v", cmd.Process.Pid, got)
	}

	child := limited(t, "cat")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	run(t, limited(t, agent, "signal", "--pid", itoa(child.Process.Pid), "--signal", "TERM"), "").want(t, "", 0, "")
	_ = child.Wait()
	if status := child.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("the child ended by %v", status)
	}
}

func fields(pid int, words ...string) string {
	return strings.Join(append([]string{itoa(pid)}, words...), " ") + "\n"
}

// TestEnvironment: of one name there is one value, the last, also if there were two
// before.
func TestEnvironment(t *testing.T) {
	cmd := command(t, "console", "--env", "A=x", "--env", "B=", "--env", "A=3=4", "--", "/usr/bin/env")
	cmd.Env = []string{"A=1", "C=c", "A=2", "nothing", "D=d"}
	got := run(t, cmd, "")
	got.want(t, "C=c\nD=d\nB=\nA=3=4\n", 0, "")
}

// TestPath looks for the program where the program's own PATH says.
func TestPath(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	script := func(dir, name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	script(one, "both", "#!/bin/sh\necho one\n", 0o644) // not executable: the next is taken
	script(two, "both", "#!/bin/sh\necho two \"$0\" \"$@\"\n", 0o755)
	script(one, "only", "#!/bin/sh\n", 0o644)
	script(one, "lost", "#!/nowhere/sh\n", 0o755)
	script(one, "text", "no program\n", 0o755)
	if err := os.Mkdir(filepath.Join(one, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := "PATH=" + one + ":" + two
	for _, test := range []struct {
		program, printed string
		code             int
		said             string
	}{
		{"both", "two " + two + "/both a b\n", 0, ""},
		{"only", "", 126, "permission denied"},
		{"folder", "", 127, "no such program"},
		{"lost", "", 126, "interpreter"},
		{"text", "", 126, "no program for this system"},
		{"nowhere", "", 127, "no such program in " + one},
		{"", "", 127, "no such program"},
		{one + "/nowhere", "", 127, "no such file"},
		{one + "/only/x", "", 127, "not a directory"},
		{one + "/only", "", 126, "permission denied"},
		{one + "/folder", "", 126, "permission denied"},
		{two + "/both", "two " + two + "/both a b\n", 0, ""},
	} {
		t.Run(test.program, func(t *testing.T) {
			run(t, command(t, "console", "--env", path, "--", test.program, "a", "b"), "").want(t, test.printed, test.code, test.said)
			// The process id comes first all the same.
			got := run(t, command(t, "console", "--pid", "--env", path, "--", test.program, "a", "b"), "")
			if _, rest := split(t, got.stdout); rest != test.printed {
				t.Errorf("after the process id there is %q", rest)
			}
		})
	}
	cmd := command(t, "console", "--", "sh", "-c", "echo found")
	cmd.Env = []string{"X=1"} // no PATH at all
	run(t, cmd, "").want(t, "found\n", 0, "")
}

func TestWait(t *testing.T) {
	for stdin, code := range map[string]int{"\x00rest": 0, "\nrest": 0, "rest": 2, "": 2, " \n": 2} {
		got := run(t, command(t, "console", "--wait", "--", "cat"), stdin)
		if code == 0 {
			got.want(t, "rest", 0, "")
		} else {
			got.want(t, "", code, "standard input")
		}
	}
	cmd := command(t, "console", "--wait", "--", "cat")
	folder, err := os.Open(t.TempDir()) // what cannot be read
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	cmd.Stdin = folder
	run(t, cmd, "").want(t, "", 2, "is a directory")
}

// TestPidUnwritten does not run the program.
func TestPidUnwritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ran")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	reader, broken, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = reader.Close()
	defer func() { _ = broken.Close() }()
	for name, out := range map[string]*os.File{"full": full, "nobody reads": broken} {
		cmd := command(t, "console", "--pid", "--", "touch", file)
		cmd.Stdout = out
		got := run(t, cmd, "")
		if got.code != 3 || !strings.Contains(got.stderr, "cannot write the process id") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the program ran")
	}
}

// TestUntouched: the program has what it would have without guest, and its own exit
// code or signal.
func TestUntouched(t *testing.T) {
	const look = `ulimit -n; trap; grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls -l /proc/self/fd | wc -l; exit 42`
	direct := run(t, limited(t, "/bin/sh", "-c", look), "")
	through := run(t, command(t, "console", "--", "/bin/sh", "-c", look), "")
	if through != direct || direct.code != 42 {
		t.Errorf("a program sees\n%+v, without guest\n%+v", through, direct)
	}
	cmd := command(t, "console", "--", "/bin/sh", "-c", "kill -USR1 $$")
	run(t, cmd, "")
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGUSR1 {
		t.Errorf("it ended by %v", status)
	}
}
