//go:build unix

package cmdline

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestMainFunction runs Main in a process of its own, which is this test
// binary again.
func TestMainFunction(t *testing.T) {
	for _, test := range []struct {
		program string
		signal  syscall.Signal
		code    int
	}{
		{program: "clean", signal: syscall.SIGTERM},
		{program: "clean", signal: syscall.SIGINT},
		{program: "stuck", signal: syscall.SIGTERM, code: 143},
		{program: "stuck", signal: syscall.SIGINT, code: 130},
		{program: "peaceful", signal: syscall.SIGTERM},
		{program: "peaceful", signal: syscall.SIGINT},
		{program: "failing", code: 1},
	} {
		t.Run(fmt.Sprintf("%s %v", test.program, test.signal), func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), programVariable+"="+test.program)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// Each line that the program says is answered with a signal.
			lines := bufio.NewScanner(stdout)
			for lines.Scan() {
				if err := cmd.Process.Signal(test.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Error(err)
				}
			}
			err = cmd.Wait()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if cmd.ProcessState.ExitCode() != test.code {
				t.Errorf("it ended with %v", cmd.ProcessState)
			}
		})
	}
}
