package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"example.com/converge/pkg/clitest"
)

// patience bounds every wait for an event; it decides no test that is right.
const patience = 2 * time.Minute

// TestMain puts the programs on the PATH: wsproxy itself, parent and plainproxy.
func TestMain(m *testing.M) {
	clitest.Main(m, map[string]func(){"wsproxy": main, "parent": parent, "plainproxy": plainProxy})
}

// parent is what ssh is to its ProxyCommand, with wsproxy's arguments: it reads
// wsproxy's stdout. Stdin and stderr are handed on as they are.
func parent() {
	cmd := exec.Command("wsproxy", os.Args[1:]...)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = io.Copy(os.Stdout, out)
	_ = cmd.Wait()
}
