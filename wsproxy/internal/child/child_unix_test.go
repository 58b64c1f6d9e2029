//go:build unix

package child

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// wrapper, in the environment, makes the test a program that runs a script as
// the package would, and exits with its status.
const wrapper = "CHILD_TEST_SCRIPT"

func TestMain(m *testing.M) {
	if script := os.Getenv(wrapper); script != "" {
		status, err := Run(Command{Name: "sh", Args: []string{"-c", script}, Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
		os.Exit(status)
	}
	goleak.VerifyTestMain(m)
}

func files() (in, out, errs *os.File) { return os.Stdin, os.Stdout, os.Stderr }

func TestStatus(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0": 0, "exit 3": 3, "exit 255": 255, "kill -TERM $$": 128 + 15, "kill -KILL $$": 128 + 9,
	} {
		c := Command{Name: "sh", Args: []string{"-c", script}, Env: os.Environ()}
		c.Stdin, c.Stdout, c.Stderr = files()
		if got, err := Run(c); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", script, got, err, want)
		}
	}
}

func TestNotThere(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	c := Command{Name: "no-such-program"}
	c.Stdin, c.Stdout, c.Stderr = files()
	if _, err := Run(c); err == nil || !strings.Contains(err.Error(), "cannot find no-such-program: install it") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "no-such-program"), []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(c); err == nil || !strings.Contains(err.Error(), "cannot run no-such-program") {
		t.Errorf("got %v", err)
	}
}

// wrap starts a process that runs a script. ready is closed when it has printed
// a line.
func wrap(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), wrapper+"="+script)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

func wantStatus(t *testing.T, cmd *exec.Cmd, want int) {
	t.Helper()
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != want {
		t.Errorf("it ended with %d, want %d", got, want)
	}
}

// Signals that ask to end are passed on.
func TestSignals(t *testing.T) {
	for _, s := range []os.Signal{unix.SIGTERM, unix.SIGHUP} {
		cmd := wrap(t, `trap "exit 41" TERM HUP; echo; while :; do sleep 0.05; done`)
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, cmd, 41)
	}
}

// What the terminal sends to both ends neither: the command decides.
func TestInterrupted(t *testing.T) {
	cmd := wrap(t, `trap "exit 42" TERM; echo; while :; do sleep 0.05; done`)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGTTIN} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, cmd, 42)
}

// nohup's signal stays ignored.
func TestIgnored(t *testing.T) {
	cmd := exec.Command("sh", "-c", `trap "" HUP; exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), wrapper+"="+`kill -HUP $$; exit 43`)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, cmd, 43)
}

// TestStops: a command that stops itself, as ssh does at ~^Z, stops this process
// too, and goes on with it.
func TestStops(t *testing.T) {
	cmd := wrap(t, `echo; kill -STOP $$; kill -STOP $$; exit 44`)
	for range 2 {
		for {
			var status unix.WaitStatus
			_, err := unix.Wait4(cmd.Process.Pid, &status, unix.WUNTRACED, nil)
			if err == unix.EINTR {
				continue
			}
			if err != nil || !status.Stopped() {
				t.Fatalf("it did not stop: %#x, %v", status, err)
			}
			break
		}
		if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	wantStatus(t, cmd, 44)
}
