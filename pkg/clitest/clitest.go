// Package clitest is what the command-line tests of all programs have in
// common: the real main on the PATH of testscript, exit codes to the number,
// and the search for leaked goroutines. It is for tests: no program may
// contain it.
package clitest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// RaceOptions, in the environment as GORACE, spare every process under the
// race detector a second of sleep at its end.
const RaceOptions = "atexit_sleep_ms=0"

// Main is for TestMain: it puts the programs, by name and main function, on
// the PATH of the scripts, runs the tests, and fails where a goroutine is left
// after them. It does not return.
func Main(m *testing.M, programs map[string]func()) {
	testscript.Main(leakChecked{m}, programs)
}

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

// Run runs the scripts of testdata/script. setup, which may be nil, prepares
// the environment of each. Beside the given commands there is exits CODE PROGRAM
// ARGS..., for a program that must exit with that code.
func Run(t *testing.T, setup func(*testscript.Env) error, commands map[string]func(*testscript.TestScript, bool, []string)) {
	all := map[string]func(*testscript.TestScript, bool, []string){"exits": exits}
	for name, command := range commands {
		all[name] = command
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, "GORACE="+RaceOptions)
			if setup == nil {
				return nil
			}
			return setup(env)
		},
		Cmds: all,
	})
}

// exits is the command of that name.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v exited with %d, want %d", args[1:], got, want)
	}
}

// ciVariables are those by which the agent knows a CI system.
var ciVariables = []string{
	"CI", "CIRCLECI", "CI_SYSTEM_NAME", "DRONE", "FORGEJO_ACTIONS", "GITEA_ACTIONS",
	"GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TF_BUILD",
}

// OutsideCI returns an environment without what tells of a CI system: there
// the agent does not print a password where everybody could read it, and tests
// have to end alike everywhere.
func OutsideCI(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(ciVariables, name)
	})
}
