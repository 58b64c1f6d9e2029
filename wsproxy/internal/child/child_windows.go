package child

import (
	"errors"
	"os/exec"
)

// run starts the command and waits for its end. The console's ctrl-C goes to
// the command too.
func run(cmd *exec.Cmd) (int, error) {
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}
