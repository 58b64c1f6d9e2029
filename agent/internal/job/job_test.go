//go:build linux || darwin

package job

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// helper makes this test binary a command, which the variable names.
const helper = "CONVERGE_JOB_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(helper) {
	case "signals":
		countSignals()
	case "stdout":
		info, err := os.Stdout.Stat()
		fmt.Fprintln(os.Stderr, inode(info), err)
	default:
		goleak.VerifyTestMain(m)
	}
}

// countSignals names the signals that come, and ends after the second.
func countSignals() {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	fmt.Println("ready")
	fmt.Println(<-c)
	fmt.Println(<-c)
	os.Exit(7)
}

func inode(info os.FileInfo) uint64 {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return stat.Ino
}

func sh(line string) []string { return []string{"/bin/sh", "-c", line} }

func TestResult(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	const not = "could not be started: "
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{sh("true"), 0, "succeeded"},
		{sh("exit 42"), 42, "ended with exit code 42"},
		{sh("exit 255"), 255, "ended with exit code 255"},
		{sh("kill -TERM $$"), 143, "was killed by SIGTERM"},
		{sh("kill -KILL $$"), 137, "was killed by SIGKILL"},
		{sh("kill -SEGV $$"), 139, "was killed by SIGSEGV"},
		{[]string{"no-such-program-anywhere"}, 127, not + "no-such-program-anywhere: executable file not found"},
		{[]string{filepath.Join(t.TempDir(), "none")}, 127, not},
		{[]string{plain}, 126, not},
		{[]string{t.TempDir()}, 126, not},
	} {
		r := Run(Command{Args: test.args, Env: os.Environ()})
		if r.Code != test.code || !strings.HasPrefix(r.String(), test.says) || (r.Err != nil) != strings.HasPrefix(test.says, not) {
			t.Errorf("%q: %+v %q, want %d %q", test.args, r, r, test.code, test.says)
		}
	}
}

// The bytes go through unchanged, both ways, with the streams apart and the
// environment that is given.
func TestStreams(t *testing.T) {
	binary := "a\x00\xff\r\n\x1b[1m no newline"
	var stdout, stderr bytes.Buffer
	r := Run(Command{
		Args: sh(`cat; echo "$X $agentdir" >&2`), Env: []string{"X=y", "PATH=" + os.Getenv("PATH")},
		Stdin: strings.NewReader(binary), Stdout: &stdout, Stderr: &stderr,
	})
	if r.Code != 0 || stdout.String() != binary || stderr.String() != "y \n" {
		t.Errorf("%+v, %q, %q", r, &stdout, &stderr)
	}
}

// A file is handed over: the command has the same one, not a copy of what goes
// through.
func TestSameFile(t *testing.T) {
	_, w := pipe(t)
	info, err := w.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	r := Run(Command{Args: []string{os.Args[0]}, Env: append(os.Environ(), helper+"=stdout"), Stdout: w, Stderr: &stderr})
	if want := fmt.Sprintf("%d <nil>\n", inode(info)); r.Code != 0 || stderr.String() != want {
		t.Errorf("%+v, the command's stdout is %q, want %q", r, &stderr, want)
	}
}

// Signals reach the command and do not end its parent.
func TestSignals(t *testing.T) {
	// What comes too late for Run must not end the tests.
	guard := make(chan os.Signal, 16)
	signal.Notify(guard, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(guard)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} {
		t.Run(s.String(), func(t *testing.T) {
			stdout, w := pipe(t)
			result := make(chan Result, 1)
			go func() {
				result <- Run(Command{Args: []string{os.Args[0]}, Env: append(os.Environ(), helper+"=signals"), Stdout: w, Stderr: os.Stderr})
				w.Close()
			}()
			lines := bufio.NewScanner(stdout)
			for _, want := range []string{"ready", s.String()} {
				if !lines.Scan() || lines.Text() != want {
					t.Errorf("%q, want %q", lines.Text(), want)
				}
				if err := syscall.Kill(os.Getpid(), s); err != nil {
					t.Fatal(err)
				}
			}
			if r := <-result; r.Code != 7 {
				t.Errorf("%+v", r)
			}
			if rest, err := io.ReadAll(stdout); err != nil || strings.TrimSpace(string(rest)) != s.String() && len(rest) > 0 {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return r, w
}
