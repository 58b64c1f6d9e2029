package gitcmd

import (
	"os"
	"os/exec"
	"syscall"
)

// prepare keeps Ctrl-C of the console away: who starts git ends it.
func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func killGroup(p *os.Process) { _ = p.Kill() }
