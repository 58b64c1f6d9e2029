package house_test

import (
	"bufio"
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// freePort finds a port of 127.0.0.1 that nobody listens on. It is below those
// that the kernel gives to outgoing connections, so nobody takes it by chance.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(10000))
		if listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			if err := listener.Close(); err != nil {
				t.Fatal(err)
			}
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// makeRun is a scripts/run under way.
type makeRun struct {
	cmd    *exec.Cmd
	out    *bufio.Scanner
	stderr bytes.Buffer
	// temp is its temporary folder, empty at the start.
	temp string
	port string
}

// startRun starts scripts/run in a copy of the repository.
func startRun(t *testing.T, dir, port string) *makeRun {
	t.Helper()
	// A folder with a space in its name is the hard case.
	temp := filepath.Join(t.TempDir(), "a b")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	r := &makeRun{temp: temp, port: port}
	r.cmd = exec.CommandContext(t.Context(), filepath.Join(dir, "scripts", "run"))
	// TERM rather than KILL at the end of a failed test: it cleans up.
	r.cmd.Cancel = func() error { return r.cmd.Process.Signal(syscall.SIGTERM) }
	r.cmd.Dir = dir
	r.cmd.Env = append(os.Environ(), "PWD="+dir, "PORT="+port, "LISTEN=", "TMPDIR="+temp)
	r.cmd.Stderr = &r.stderr
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out = bufio.NewScanner(stdout)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// awaitLine reads the output up to a line that begins with prefix.
func (r *makeRun) awaitLine(t *testing.T, prefix string) string {
	t.Helper()
	var seen strings.Builder
	for r.out.Scan() {
		if strings.HasPrefix(r.out.Text(), prefix) {
			return r.out.Text()
		}
		seen.WriteString(r.out.Text() + "\n")
	}
	_ = r.cmd.Wait()
	t.Fatalf("no line begins with %q:\n%s%s", prefix, seen.String(), r.stderr.String())
	return ""
}

// end waits for the script, returns its exit status and checks that it left
// nothing behind.
func (r *makeRun) end(t *testing.T) int {
	t.Helper()
	for r.out.Scan() {
	}
	var exit *exec.ExitError
	if err := r.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(r.temp); err != nil || len(left) != 0 {
		t.Errorf("left in the temporary folder: %v (%v)", left, err)
	}
	for line := range strings.Lines(run(t, command{dir: ".", args: []string{"ps", "-eo", "pid,args"}})) {
		if strings.Contains(line, "bin/server --listen 127.0.0.1:"+r.port+" ") || strings.Contains(line, r.temp) {
			t.Errorf("still running: %s", line)
		}
	}
	return r.cmd.ProcessState.ExitCode()
}

// TestMakeRun does what a newcomer does: start it, paste the line that it
// prints, and end it.
func TestMakeRun(t *testing.T) {
	dir := copyRepository(t, loadRepository(t))

	t.Run("paste and stop", func(t *testing.T) {
		r := startRun(t, dir, freePort(t))
		for _, prefix := range []string{`  "` + dir + `/bin/wsproxy" ssh `, "  ssh "} {
			line := r.awaitLine(t, prefix)
			got := run(t, command{dir: dir, args: []string{"bash", "-c", line + ` 'echo inside $((6 * 7))'`}})
			if got != "inside 42\n" {
				t.Errorf("the pasted line gave %q:\n%s", got, line)
			}
		}
		if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if status := r.end(t); status != 0 {
			t.Errorf("exit status %d, want 0:\n%s", status, r.stderr.String())
		}
	})
	t.Run("stop at once", func(t *testing.T) {
		r := startRun(t, dir, freePort(t))
		r.awaitLine(t, "  ssh ")
		for range 2 {
			// It may be through with the first before the second comes.
			if err := r.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
		}
		if status := r.end(t); status != 0 && status != 130 {
			t.Errorf("exit status %d, want 0 or 130:\n%s", status, r.stderr.String())
		}
	})
	t.Run("stop while it starts", func(t *testing.T) {
		r := startRun(t, dir, freePort(t))
		r.awaitLine(t, "building")
		if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if status := r.end(t); status != 130 {
			t.Errorf("exit status %d, want 130:\n%s", status, r.stderr.String())
		}
	})
	t.Run("port in use", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := listener.Close(); err != nil {
				t.Error(err)
			}
		})
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		r := startRun(t, dir, port)
		if status := r.end(t); status != 1 {
			t.Errorf("exit status %d, want 1", status)
		}
		if said := r.stderr.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "port "+port) || !strings.Contains(said, "PORT=") {
			t.Errorf("it says %q, want one line on the port and PORT=", said)
		}
	})
	t.Run("no port", func(t *testing.T) {
		for _, port := range []string{"0", "65536", "http", "-1"} {
			r := startRun(t, dir, port)
			if status := r.end(t); status != 2 {
				t.Errorf("PORT=%s: exit status %d, want 2", port, status)
			}
		}
	})
}
