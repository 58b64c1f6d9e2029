package winproc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// child says what this program does when a test starts it once more.
const child = "WINPROC_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(child) {
	case "":
		os.Exit(m.Run())
	case "streams":
		// What came in goes out, and a word to stderr.
		_, _ = io.Copy(os.Stdout, os.Stdin)
		fmt.Fprint(os.Stderr, "errors")
		os.Exit(300)
	case "describe":
		dir, _ := os.Getwd()
		fmt.Printf("%s|%s|%q\n", dir, os.Getenv("NAME"), os.Args[1:])
	case "parent":
		// A child, which holds the pipe open and is left behind.
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), child+"=sleeper")
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
		}
	case "sleeper":
		fmt.Println("asleep")
		time.Sleep(time.Hour)
	}
	os.Exit(0)
}

// pipes are this side of a command's streams.
type pipes struct {
	in       io.WriteCloser
	out, err *bufio.Reader
}

// start starts this program as a child of some kind.
func start(t *testing.T, kind string, change func(*exec.Cmd)) (*exec.Cmd, *Job, pipes) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: self, Args: []string{self}, Env: append(os.Environ(), child+"="+kind)}
	if change != nil {
		change(cmd)
	}
	var ours, theirs [3]*os.File
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			r.Close()
			w.Close()
		})
		if ours[i], theirs[i] = r, w; i == 0 {
			ours[i], theirs[i] = w, r
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	job, err := Start(cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(job.Close)
	for _, f := range theirs {
		f.Close()
	}
	return cmd, job, pipes{ours[0], bufio.NewReader(ours[1]), bufio.NewReader(ours[2])}
}

func TestStreamsAndStatus(t *testing.T) {
	cmd, _, p := start(t, "streams", nil)
	fmt.Fprint(p.in, "in and out\n")
	p.in.Close()
	out, _ := io.ReadAll(p.out)
	errs, _ := io.ReadAll(p.err)
	_ = cmd.Wait()
	if string(out) != "in and out\n" || string(errs) != "errors" || cmd.ProcessState.ExitCode() != 300 {
		t.Errorf("got %q, %q, %v", out, errs, cmd.ProcessState)
	}
}

func TestFolderArgumentsAndEnvironment(t *testing.T) {
	dir := os.Getenv("SystemRoot")
	cmd, _, p := start(t, "describe", func(cmd *exec.Cmd) {
		cmd.Dir = dir
		cmd.Args = append(cmd.Args, `a "b" c\`, "", "ä")
		// Windows knows one variable of a name in whatever case.
		cmd.Env = append(cmd.Env, "name=no", "NAME=yes ä")
	})
	out, _ := io.ReadAll(p.out)
	_ = cmd.Wait()
	want := fmt.Sprintf("%s|yes ä|%q\n", dir, []string{`a "b" c\`, "", "ä"})
	if string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestCommandLineIsTakenAsItIs(t *testing.T) {
	cmd, _, p := start(t, "describe", func(cmd *exec.Cmd) {
		_, line := Arguments(`cmd.exe`, `echo "a  b" & exit 7`, false)
		path, err := exec.LookPath("cmd.exe")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args, cmd.SysProcAttr = path, nil, &syscall.SysProcAttr{CmdLine: line}
	})
	out, _ := io.ReadAll(p.out)
	_ = cmd.Wait()
	if strings.TrimSpace(string(out)) != `"a  b"` || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("got %q, %v", out, cmd.ProcessState)
	}
}

// TestJob ends a process that its parent has left behind. It holds the pipe,
// whose end says that it is gone.
func TestJob(t *testing.T) {
	for name, end := range map[string]func(*Job){"Terminate": (*Job).Terminate, "Close": (*Job).Close} {
		t.Run(name, func(t *testing.T) {
			cmd, job, p := start(t, "parent", nil)
			if line, err := p.out.ReadString('\n'); strings.TrimSpace(line) != "asleep" {
				t.Fatalf("got %q, %v", line, err)
			}
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			end(job)
			if rest, err := io.ReadAll(p.out); err != nil || len(rest) > 0 {
				t.Errorf("got %q, %v", rest, err)
			}
		})
	}
}

func TestTerminateGivesTheStatus(t *testing.T) {
	cmd, job, p := start(t, "sleeper", nil)
	if _, err := p.out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	job.Terminate()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit status %d", code)
	}
}

func TestStartRefuses(t *testing.T) {
	missing := &exec.Cmd{Path: filepath.Join(os.Getenv("SystemRoot"), "missing.exe"), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if _, err := Start(missing, nil); err == nil {
		t.Error("a program that is not there was started")
	}
	self, _ := os.Executable()
	if _, err := Start(&exec.Cmd{Path: self}, nil); err == nil {
		t.Error("a process without streams was started")
	}
}

// TestConsole runs a program on a pseudo console: it ends with its status, and
// then the output ends.
func TestConsole(t *testing.T) {
	if !HasConsoles() {
		t.Fatal("this Windows has no pseudo consoles")
	}
	c, err := NewConsole(100, 40)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Input.Close()
	defer c.Output.Close()
	path, err := exec.LookPath("cmd.exe")
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: path, Args: []string{path, "/d", "/c", "echo hello >CON & exit 5"}, Env: os.Environ()}
	job, err := Start(cmd, c)
	if err != nil {
		t.Fatal(err)
	}
	defer job.Close()
	// Wine 8 makes consoles and cannot resize them.
	if err := c.Resize(120, 50); err != nil && !errors.Is(err, syscall.Errno(windows.E_NOTIMPL)) {
		t.Error(err)
	}
	read := make(chan error)
	go func() {
		shown, err := io.ReadAll(c.Output)
		if !bytes.Contains(shown, []byte("hello")) {
			t.Errorf("the console showed %q", shown)
		}
		read <- err
	}()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit status %d", code)
	}
	c.End()
	if err := <-read; err != nil {
		t.Errorf("the output ended in %v", err)
	}
	if _, err := Start(cmd, c); err == nil {
		t.Error("a console that has ended took a program")
	}
}
