package main

import (
	"fmt"
	"os"
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

// TestMain puts tcptows on the PATH.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"tcptows": main})
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
