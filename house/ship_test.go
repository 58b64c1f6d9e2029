package house_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// ended is the exit code of a command, and what it wrote.
func ended(t *testing.T, c command) (code int, stdout, stderr string) {
	t.Helper()
	stdout, stderr, err := c.start(t.Context())
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode(), stdout, stderr
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, stdout, stderr
}

// TestShipCapable asks scripts/capable where the rights are missing that a
// container has not: it says so in one line, with status 1.
func TestShipCapable(t *testing.T) {
	root := loadRepository(t).root
	without := func(right string) []string {
		if os.Geteuid() != 0 {
			return nil // nor has whoever runs this
		}
		return []string{"setpriv", "--bounding-set", "-" + right}
	}
	said := regexp.MustCompile(`^this machine cannot [^\n]+\n$`)
	for what, right := range map[string]string{"machine": "sys_admin", "engine": "net_admin"} {
		if what == "machine" && os.Geteuid() != 0 {
			continue // perhaps it may use sudo
		}
		args := append(without(right), filepath.Join(root, "scripts", "capable"), what)
		code, stdout, stderr := ended(t, command{dir: root, args: args})
		if code != 1 || !said.MatchString(stdout) || stderr != "" {
			t.Errorf("%s without %s: exit code %d, %q, %q", what, right, code, stdout, stderr)
		}
	}
	for _, args := range [][]string{nil, {"anything"}, {"machine", "engine"}, {"inside"}} {
		args = append([]string{filepath.Join(root, "scripts", "capable")}, args...)
		if code, stdout, stderr := ended(t, command{dir: root, args: args}); code != 2 || stdout != "" || !strings.HasPrefix(stderr, "usage: ") {
			t.Errorf("%q: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

// TestShipBeside: a step that runs beside the others is waited for, its failure
// ends them, and nothing of it is left when another one fails.
func TestShipBeside(t *testing.T) {
	steps := readFile(t, filepath.Join(loadRepository(t).root, "scripts", "steps"))
	for name, test := range map[string]struct {
		body string
		code int
		want []string
	}{
		"good": {"beside waits sh -c 'read x <fifo; echo $x'\nstep first sh -c 'echo from the first >fifo'\njoined\n", 0,
			[]string{`(?s)==> waits, beside.*==> first.*==> waits\nfrom the first\n`, `first +\d+\.\d\nwaits +\d+\.\d\n`, "steps: 2 passed, 0 failed\n"}},
		"fails": {"beside waits sh -c 'echo oh; exit 7'\nstep first true\njoined\n", 7,
			[]string{"==> waits\noh\n", `waits +\d+\.\d FAILED\n`, "passed, 1 failed\n"}},
		"seen early": {"exec 7<>fifo 8<fifo\nbeside waits false\nexec 7>&-\nstep first sh -c 'cat <&8'\nstep never echo the work\njoined\n", 1,
			[]string{`first +\d+\.\d\nwaits +\d+\.\d FAILED\n`, "steps: 1 passed, 1 failed\n"}},
		"other fails": {"beside waits sh -c 'exec 9>life; echo alive >&9; echo begun >fifo; exec sleep 600'\nstep first sh -c 'read x <fifo; exit 3'\njoined\n", 3,
			[]string{`first +\d+\.\d FAILED\n`, "steps: 0 passed, 1 failed\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "scripts", "steps"), string(steps))
			writeFile(t, filepath.Join(dir, "scripts", "all"), "#!/usr/bin/env bash\nset -euo pipefail\n. scripts/steps\nmkfifo fifo\n"+test.body+"outcome=ok\n")
			if err := os.Chmod(filepath.Join(dir, "scripts", "all"), 0o755); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("mkfifo", filepath.Join(dir, "life")).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			life, err := os.OpenFile(filepath.Join(dir, "life"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer life.Close()
			code, stdout, stderr := ended(t, command{dir: dir, args: []string{"scripts/all"}})
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, want := range test.want {
				if !regexp.MustCompile(want).MatchString(stdout) {
					t.Errorf("it does not say %q: %s%s", want, stdout, stderr)
				}
			}
			if strings.Contains(stdout, "the work") {
				t.Error("it went on")
			}
			// It ends when the last process that has it open has.
			text, err := io.ReadAll(life)
			if err != nil || (name == "other fails") != (string(text) == "alive\n") {
				t.Errorf("what ran beside says %q, %v", text, err)
			}
		})
	}
}

// TestShipSteps runs steps of which one needs a right: where it is missing, the
// step is skipped and the table says why; where nobody can tell, it fails.
func TestShipSteps(t *testing.T) {
	steps := readFile(t, filepath.Join(loadRepository(t).root, "scripts", "steps"))
	for name, test := range map[string]struct {
		capable string
		code    int
		want    []string
	}{
		"there":   {"exit 0", 0, []string{"the work", `second +\d+\.\d\n`, "steps: 3 passed, 0 failed\n"}},
		"missing": {"echo this machine cannot fly; exit 1", 0, []string{`second +0\.0 skipped: this machine cannot fly\n`, "steps: 2 passed, 0 failed, 1 skipped\n"}},
		"silent":  {"exit 1", 1, []string{`second +\d+\.\d FAILED\n`, "steps: 1 passed, 1 failed\n"}},
		"unknown": {"echo this machine cannot fly; exit 2", 2, []string{`second +\d+\.\d FAILED\n`, "steps: 1 passed, 1 failed\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{
				"steps":   string(steps),
				"capable": "#!/bin/sh\n" + test.capable + "\n",
				"all": "#!/usr/bin/env bash\nset -euo pipefail\n. scripts/steps\nstep first true\n" +
					"step_if flying second echo the work\nstep third true\noutcome=ok\n",
			} {
				writeFile(t, filepath.Join(dir, "scripts", file), text)
				if err := os.Chmod(filepath.Join(dir, "scripts", file), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			code, stdout, stderr := ended(t, command{dir: dir, args: []string{"scripts/all"}})
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, want := range test.want {
				if !regexp.MustCompile(want).MatchString(stdout) {
					t.Errorf("it does not say %q: %s%s", want, stdout, stderr)
				}
			}
			if ran := strings.Contains(stdout, "the work"); ran != slices.Contains(test.want, "the work") {
				t.Errorf("the step that needs a right ran: %v", ran)
			}
		})
	}
}
