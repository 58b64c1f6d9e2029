package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// patience bounds every wait for an event; it decides no test that is right.
const patience = 2 * time.Minute

// raceOptions, in GORACE, spare every process under the race detector a second
// of sleep at its end.
const raceOptions = "atexit_sleep_ms=0"

// TestMain puts the programs on the PATH: wsproxy itself, and parent.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"wsproxy": main, "parent": parent})
}

// leakChecked fails where a goroutine is left after the tests.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	if code := m.M.Run(); code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
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
