package joblog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/pkg/watchtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func env(variables ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(variables); i += 2 {
			if variables[i] == name {
				return variables[i+1]
			}
		}
		return ""
	}
}

func TestFold(t *testing.T) {
	for name, test := range map[string]struct {
		getenv func(string) string
		want   string
	}{
		"terminal": {env(), `^one\ntwo\n$`},
		"github":   {env("GITHUB_ACTIONS", "true"), `^::group::A title\none\ntwo\n::endgroup::\n$`},
		"gitlab": {env("GITLAB_CI", "true"),
			`^\x1b\[0Ksection_start:\d+:(converge_\d+_1)\[collapsed=true\]\r\x1b\[0KA title\none\ntwo\n\x1b\[0Ksection_end:\d+:(converge_\d+_1)\r\x1b\[0K\n$`},
		"gitea": {env("GITEA_ACTIONS", "true", "GITHUB_ACTIONS", "true"), `^::group::A title\n`},
	} {
		var out bytes.Buffer
		l := New(&out, test.getenv)
		l.Fold("A title", "one\ntwo\n")
		m := regexp.MustCompile(test.want).FindStringSubmatch(out.String())
		if m == nil || len(m) == 3 && m[1] != m[2] {
			t.Errorf("%s: %q", name, out.String())
		}
	}
}

// TestRun says something after a silence only, and nothing where there is
// nothing to say.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out watchtest.Output
		l := New(&out, env())
		ctx, cancel := context.WithCancel(t.Context())
		var asked atomic.Int64
		var line atomic.Pointer[string]
		text, silence := "still here\n", ""
		line.Store(&text)
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.Run(ctx, func() string { asked.Add(1); return *line.Load() })
		}()
		step := func(d time.Duration, said string, times int64) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if out.String() != said || asked.Load() != times {
				t.Errorf("it said %q and asked %d times, want %q and %d", out.String(), asked.Load(), said, times)
			}
		}
		step(Every-time.Second, "", 0)
		l.Say("x\n")
		step(Every-time.Second, "x\n", 0)
		step(2*time.Second, "x\nstill here\n", 1)
		step(Every, "x\nstill here\nstill here\n", 2)
		line.Store(&silence)
		step(3*Every, "x\nstill here\nstill here\n", 5)
		cancel()
		<-done
	})
}

func TestSummary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "summary")
	if err := os.WriteFile(file, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := New(io.Discard, env("GITHUB_ACTIONS", "true", "GITHUB_STEP_SUMMARY", file))
	l.Note("<b>one</b>\n# two")
	if err := l.Summarize("First"); err != nil {
		t.Fatal(err)
	}
	for range maxNotes + 5 {
		l.Note(strings.Repeat("x", maxNote+1))
	}
	if err := l.Summarize("Second"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if begin := "before\n\n#### First\n\n    <b>one</b> # two\n\n\n#### Second\n\n    xxx"; !strings.HasPrefix(string(text), begin) {
		t.Errorf("%.200q", text)
	}
	if !strings.HasSuffix(string(text), "x\n    and 5 more lines, which are in the log\n\n") || len(text) > maxNotes*(maxNote+10)+200 {
		t.Errorf("%d bytes, %q", len(text), text[max(0, len(text)-100):])
	}
	// A summary that cannot be written is told of; without one nothing is kept.
	l = New(io.Discard, env("GITHUB_ACTIONS", "true", "GITHUB_STEP_SUMMARY", filepath.Dir(file)))
	if err := l.Summarize("x"); err == nil || !strings.Contains(err.Error(), "GITHUB_STEP_SUMMARY") {
		t.Errorf("got %v", err)
	}
	l = New(io.Discard, env("GITLAB_CI", "true", "GITHUB_STEP_SUMMARY", file))
	l.Note("x")
	if err := l.Summarize("x"); err != nil || len(l.notes) > 0 {
		t.Errorf("%v, %q", err, l.notes)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }

// A log that is gone is no reason for anything.
func TestBroken(t *testing.T) {
	l := New(broken{}, env())
	l.Say("x\n")
	l.Fold("x", "y\n")
}
