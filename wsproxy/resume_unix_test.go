//go:build unix

package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/converge/pkg/resume"
	"example.com/converge/pkg/resume/resumetest"
)

func newFar(t *testing.T) *resumetest.Far {
	t.Helper()
	f, err := resumetest.New(resume.HubConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.End)
	return f
}

// resumable starts wsproxy and returns the agent's end of its stream too, when
// bytes have gone both ways.
func resumable(t *testing.T, f *resumetest.Far, args ...string) (*process, *resume.Stream) {
	t.Helper()
	p := start(t, "wsproxy", append(args, f.ClientURL()+f.Pin())...)
	write(t, p.stdin, "echo")
	expect(t, p.stdout, "echo")
	return p, <-f.Streams
}

// wantOver wants a stream to end now: far sooner than a lost one would.
func wantOver(t *testing.T, s *resume.Stream) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Error("the agent does not know that its client is gone")
	}
}

func TestStall(t *testing.T) {
	f := newFar(t)
	p, _ := resumable(t, f)
	said := bufio.NewReader(p.stderr)
	for range 2 {
		f.Down(true)
		f.Cut()
		write(t, p.stdin, "typed meanwhile")
		line, err := said.ReadString('\n')
		if want := "wsproxy: connection lost, reconnecting for up to 5m0s\n"; line != want {
			t.Fatalf("it said %q, %v, want %q", line, err, want)
		}
		f.Down(false)
		line, err = said.ReadString('\n')
		if want := `^wsproxy: connected again after \d+(m\d+)?s\n$`; !regexp.MustCompile(want).MatchString(line) {
			t.Fatalf("it said %q, %v, want %q", line, err, want)
		}
		expect(t, p.stdout, "typed meanwhile")
	}
	_ = p.stdin.Close()
	if rest, _ := io.ReadAll(said); len(rest) > 0 {
		t.Errorf("it said %q", rest)
	}
	p.exits(t, 0)
}

// TestQuiet says nothing, however long it stalls.
func TestQuiet(t *testing.T) {
	f := newFar(t)
	p, _ := resumable(t, f, "-q")
	f.Down(true)
	f.Cut()
	if !f.Stall() {
		t.Fatal("it does not try to come back")
	}
	f.Down(false)
	write(t, p.stdin, "back")
	expect(t, p.stdout, "back")
	_ = p.stdin.Close()
	p.exits(t, 0)
}

// TestLeaves lets the agent know at once, in whatever way ssh ends.
func TestLeaves(t *testing.T) {
	for name, leave := range map[string]func(*process){
		"SIGHUP":        func(p *process) { _ = p.cmd.Process.Signal(syscall.SIGHUP) },
		"SIGTERM":       func(p *process) { _ = p.cmd.Process.Signal(syscall.SIGTERM) },
		"end of input":  func(p *process) { _ = p.stdin.Close() },
		"output closed": func(p *process) { _ = p.stdout.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p, stream := resumable(t, newFar(t))
			leave(p)
			wantOver(t, stream)
			p.exits(t, 0)
		})
		t.Run(name+" while stalled", func(t *testing.T) {
			f := newFar(t)
			p, _ := resumable(t, f, "--quiet")
			f.Down(true)
			f.Cut()
			leave(p)
			p.exits(t, 0)
		})
	}
}

// fails wants exit code 1, one sentence, and nothing on stdout.
func fails(t *testing.T, p *process, want string) {
	t.Helper()
	out, _ := io.ReadAll(p.stdout)
	said, _ := io.ReadAll(p.stderr)
	_ = p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || len(out) > 0 || string(said) != "wsproxy: "+want+"\n" {
		t.Errorf("it exited with %d, printed %q and said %q, want %q", code, out, said, want)
	}
}

func TestWrongPin(t *testing.T) {
	f := newFar(t)
	p := start(t, "wsproxy", f.ClientURL()+"#"+strings.Repeat("A", 43))
	fails(t, p, "cannot open a resumable stream: "+resume.ErrPin.Error())
	if n := len(f.Requests()); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

// TestLost ends with what the server, or the agent, says.
func TestLost(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		f := newFar(t)
		p, _ := resumable(t, f)
		f.Answer(http.StatusForbidden)
		f.Cut()
		fails(t, p, "the connection was lost and cannot be made again: the answer is 403 (HTTP 403)")
	})
	t.Run("another agent", func(t *testing.T) {
		f := newFar(t)
		p, _ := resumable(t, f)
		if err := f.Restart(resume.HubConfig{}); err != nil {
			t.Fatal(err)
		}
		f.Cut()
		fails(t, p, "the connection was lost and cannot be made again: "+resume.ErrGone.Error())
	})
	t.Run("out of time", func(t *testing.T) {
		f := newFar(t)
		p, _ := resumable(t, f, "-q", "--resume-window", "1s")
		f.Down(true)
		f.Cut()
		fails(t, p, resume.ErrExpired.Error()+", which is 1s: the answer is 502 (HTTP 502)")
	})
}

func TestResumptionOff(t *testing.T) {
	f := newFar(t)
	for _, args := range [][]string{{"--resume-window", "0", f.ClientURL() + f.Pin()}, {"--raw", f.ClientURL()}} {
		p := start(t, "wsproxy", args...)
		expect(t, p.stdout, "plain")
		p.exits(t, 0)
	}
	// An agent that does not take the offer up.
	f.Answer(resumetest.Plain)
	p := start(t, "wsproxy", f.ClientURL()+f.Pin())
	expect(t, p.stdout, "plain")
	p.exits(t, 0)
}

// TestTell writes a line of its own to a raw terminal, and a plain one elsewhere.
func TestTell(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	tell(w, "text")
	_ = w.Close()
	if got, err := io.ReadAll(r); string(got) != "wsproxy: text\n" {
		t.Errorf("got %q, %v", got, err)
	}
	var plain strings.Builder
	tell(&plain, "text")
	if plain.String() != "wsproxy: text\n" {
		t.Errorf("got %q", &plain)
	}
}
