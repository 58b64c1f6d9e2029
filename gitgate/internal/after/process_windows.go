package after

import (
	"os"
	"os/exec"
)

func prepare(*exec.Cmd) {}

func killGroup(p *os.Process) { _ = p.Kill() }
