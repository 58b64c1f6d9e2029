//go:build linux

package proc

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/bench/internal/child"
)

func TestMain(m *testing.M) {
	if code, asked := child.Main(os.Args); asked {
		os.Exit(code)
	}
	// The race detector would let every child linger for a second.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	goleak.VerifyTestMain(m)
}

func TestParseStat(t *testing.T) {
	tests := []struct {
		name, text string
		want       stat
		bad        bool
	}{
		{"plain", "42 (cat) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 70 8 20 0 1 0 99", stat{pid: 42, parent: 7, reaped: 780 * time.Millisecond}, false},
		{"odd name", "42 (a) Z (b c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 0 0 20 0 1 0 99", stat{pid: 42, parent: 7}, false},
		{"zombie", "42 (cat) Z 1 42 42 0 -1 4194560 1 2 3 4 5 6 0 0 20 0 1 0 99", stat{pid: 42, parent: 1, zombie: true}, false},
		{"empty", "", stat{}, true},
		{"no name", "42 cat S 7", stat{}, true},
		{"brackets the wrong way", ")42( S 7", stat{}, true},
		{"short", "42 (cat) S 7 42", stat{}, true},
		{"no number", "42 (cat) S x 42 42 0 -1 4194560 1 2 3 4 5 6 0 0 20 0", stat{}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseStat([]byte(test.text))
			if (err != nil) != test.bad {
				t.Fatalf("error %v, want one: %v", err, test.bad)
			}
			if !test.bad && got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestField(t *testing.T) {
	text := []byte("Rss:  1608 kB\nPss:   221 kB\nOdd: x\nLast:")
	if got, err := field(text, "Pss:"); got != 221 || err != nil {
		t.Errorf("Pss: %d, %v", got, err)
	}
	for _, name := range []string{"None:", "Odd:", "Last:"} {
		if got, err := field(text, name); err == nil {
			t.Errorf("%s gave %d", name, got)
		}
	}
}

// begin starts a shell script that prints ready.
func begin(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start("sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	if _, err := p.Wait(t.Context(), regexp.MustCompile("ready")); err != nil {
		t.Fatal(err)
	}
	return p
}

const work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; "

// TestFigures: CPU time is that of a process, of its living descendants, and
// of those that have ended; memory is that of the living.
func TestFigures(t *testing.T) {
	const least = 10 * time.Millisecond
	for name, script := range map[string]string{
		"itself":           work + "echo ready; read x",
		"ended descendant": "(" + work + "); echo ready; read x",
		"descendant":       "(" + work + " echo ready; exec sleep 600) & wait",
	} {
		t.Run(name, func(t *testing.T) {
			// read has no input and would end: sleep keeps it.
			p := begin(t, strings.ReplaceAll(script, "read x", "exec sleep 600"))
			if got, err := p.CPU(); err != nil || got < least {
				t.Errorf("CPU %v, %v, want %v at least", got, err, least)
			}
			if got, err := p.RSS(); err != nil || got < 64<<10 {
				t.Errorf("memory %d, %v", got, err)
			}
		})
	}
	if got, err := Kernel(); err != nil || got <= 0 {
		t.Errorf("the kernel's memory is %d, %v", got, err)
	}
}

// TestQuiet: it waits for descendants to end.
func TestQuiet(t *testing.T) {
	p := begin(t, "sleep 0.2 & echo ready; wait; exec sleep 600")
	if n, err := p.Descendants(); err != nil || n != 1 {
		t.Fatalf("%d descendants, %v, want 1", n, err)
	}
	// It gives up after two seconds; a loaded machine may need it again.
	for range 30 {
		p.Quiet(t.Context(), 0)
		if n, err := p.Descendants(); err == nil && n == 0 {
			return
		}
	}
	t.Error("the descendant did not end")
}

// TestEnded: the figures of a process that has ended are an error, and so is
// waiting for what it did not say.
func TestEnded(t *testing.T) {
	p, err := Start("sh", "-c", "echo last words; exit 1")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if _, err := p.Wait(t.Context(), regexp.MustCompile("ready")); err == nil || !strings.Contains(err.Error(), "last words") {
		t.Errorf("Wait: %v, want what it said", err)
	}
	if !p.Ended() {
		t.Error("it has not ended")
	}
	if _, err := p.CPU(); !errors.Is(err, ErrEnded) {
		t.Errorf("CPU: %v, want ErrEnded", err)
	}
	if _, err := Start("/no/such/program"); err == nil {
		t.Error("a program that is not there was started")
	}
}

// TestStop: also what ignores SIGTERM ends, with its descendants.
func TestStop(t *testing.T) {
	p := begin(t, "sleep 600 & echo ready; wait")
	all, err := p.tree()
	if err != nil || len(all) != 2 {
		t.Fatalf("%d processes, %v, want 2", len(all), err)
	}
	p.Stop()
	if _, err := p.tree(); !errors.Is(err, ErrEnded) {
		t.Errorf("after Stop: %v", err)
	}
}

// TestRun: usage of a whole command, its input, and its failures.
func TestRun(t *testing.T) {
	usage, err := Run(t.Context(), Command{Args: []string{"sh", "-c", "read x; [ \"$x\" = word ] && " + work}, Stdin: []byte("word\n")})
	if err != nil || usage.CPU < 10*time.Millisecond || usage.Wall <= 0 {
		t.Errorf("usage %+v, %v", usage, err)
	}
	if _, err := Run(t.Context(), Command{Args: []string{"sh", "-c", "echo reason >&2; exit 3"}}); err == nil ||
		!strings.Contains(err.Error(), "status 3") || !strings.Contains(err.Error(), "reason") {
		t.Errorf("a failure gave %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, Command{Args: []string{"sleep", "600"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the end of its context gave %v", err)
	}
}

func TestSettled(t *testing.T) {
	values := []int64{100, 200, 300}
	got, err := Settled(t.Context(), func() (int64, error) {
		if len(values) > 1 {
			values = values[1:]
		}
		return values[0], nil
	})
	if got != 300 || err != nil {
		t.Errorf("settled at %d, %v, want 300", got, err)
	}
	broken := errors.New("broken")
	if _, err := Settled(t.Context(), func() (int64, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want its own", err)
	}
}

// TestChild: the memory of a child alone, found by its name; and a process
// that is killed is gone with its group.
func TestChild(t *testing.T) {
	// The child says that it is ready itself: before, it may not be cat yet.
	p := begin(t, "{ echo ready; sleep 600; } | cat & wait")
	pid, err := Child(p.Pid(), "cat")
	if err != nil {
		t.Fatal(err)
	}
	own, err := Pss(pid)
	if err != nil || own <= 0 {
		t.Errorf("memory %d, %v", own, err)
	}
	if all, err := p.RSS(); err != nil || all <= own {
		t.Errorf("memory of both %d, %v, of one %d", all, err, own)
	}
	if _, err := Child(p.Pid(), "true"); !errors.Is(err, ErrEnded) {
		t.Errorf("a child that is none: %v", err)
	}
	p.Kill()
	if !p.Ended() {
		t.Error("it goes on")
	}
	if _, err := Pss(p.Pid()); !errors.Is(err, ErrEnded) {
		t.Errorf("memory of what has ended: %v", err)
	}
}
