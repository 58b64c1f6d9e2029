//go:build unix

package container_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/pkg/sftp"

	"example.com/converge/container"
	"example.com/converge/pkg/watchtest"
)

// conformance is what every engine has to pass.
func conformance(t *testing.T, w *world) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"Exec", testExec},
		{"Terminal", testTerminal},
		{"TerminalInputEnd", testTerminalInputEnd},
		{"Keys", testKeys},
		{"InputEnd", testInputEnd},
		{"Signals", testSignals},
		{"Bulk", testBulk},
		{"Left", testLeft},
		{"Shutdown", testShutdown},
		{"SFTP", testSFTP},
		{"Empty", testEmpty},
		{"ReadOnly", testReadOnly},
		{"Forwards", testForwards},
		{"ForwardsLive", testForwardsLive},
		{"SessionMode", testSessionMode},
		{"SessionTerminal", testSessionTerminal},
		{"Existing", testExisting},
		{"Many", testMany},
		{"Sweep", testSweep},
	} {
		t.Run(test.name, func(t *testing.T) {
			// Cleanups run in reverse: this comes after the connections' ends.
			t.Cleanup(func() { w.none(t) })
			test.run(t, w)
		})
	}
}

func testExec(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	session(t, c).exec("echo Hello world!").ends(0, "Hello world!\n", "")
	session(t, c).exec("exit 42").ends(42, "", "")
	session(t, c).exec("echo out; echo err >&2; exit 3").ends(3, "out\n", "err\n")
	session(t, c).exec("exec /no/such/program 2>/dev/null").ends(127, "", "")
	// What is 128 and more need not be a signal.
	session(t, c).exec("exit 200").ends(200, "", "")

	r := session(t, c)
	for _, v := range []string{"FOO=bar", "EMPTY=", "EQUALS=a=b", "LINES2=a\nb"} {
		name, value, _ := strings.Cut(v, "=")
		if err := r.OnEnvRequest(1, name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.OnEnvRequest(1, "A=B", ""); err == nil {
		t.Error("a name with = was taken")
	}
	r.exec(`echo "$FOO,$EMPTY,$EQUALS,$LINES2"`).ends(0, "bar,,a=b,a\nb\n", "")

	// One program a session.
	if err := r.OnShell(1, strings.NewReader(""), io.Discard, io.Discard, nil); err == nil {
		t.Error("a second program was started in a session")
	}
}

func testTerminal(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	// The size is there before the program looks.
	r := session(t, c).terminal(80, 25).exec("stty size; echo $TERM; tty >/dev/null && echo is one")
	_ = r.wait()
	if got := r.out.String(); got != "25 80\r\nxterm\r\nis one\r\n" {
		t.Errorf("output %q", got)
	}

	r = session(t, c).terminal(80, 25).shell()
	r.write("stty size; echo one=$((1+0))\n")
	r.out.Expect(t, "one=1\r\n")
	if !strings.Contains(r.out.String(), "25 80") {
		t.Errorf("output %q", r.out)
	}
	if err := r.OnWindow(3, 120, 25, 0, 0); err != nil {
		t.Fatal(err)
	}
	r.write("stty size; echo two=$((1+1))\n")
	r.out.Expect(t, "two=2\r\n")
	if !strings.Contains(r.out.String(), "25 120") {
		t.Errorf("output %q", r.out)
	}
	r.write("exit 42\n")
	if got := r.wait(); got != 42 {
		t.Errorf("status %d, want 42", got)
	}
	if r.errs.String() != "" {
		t.Errorf("errors %q", r.errs)
	}
}

// The end of input on a terminal is not passed on: engines cut the output then.
func testTerminalInputEnd(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	in, wr := io.Pipe()
	_ = wr.Close()
	r := session(t, c).terminal(80, 25)
	// It goes on only when the end of the input has been seen for long.
	if err := r.OnExecRequest(1, "for i in 1 2 3 4 5; do sleep 0.1; echo line $i; done; exit 5", in, r.out, r.errs, r.exit); err != nil {
		t.Fatal(err)
	}
	if got := r.wait(); got != 5 || !strings.Contains(r.out.String(), "line 5") {
		t.Errorf("status %d, output %q", got, r.out)
	}
}

// What engines take for the wish to detach is typed in shells.
func testKeys(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	r := session(t, c).terminal(80, 25).exec("stty raw -echo; echo ready; od -An -tx1 -N5; stty sane")
	r.out.Expect(t, "ready")
	r.write("\x10\x11\x10\x00a")
	_ = r.wait()
	if !strings.Contains(r.out.String(), "10 11 10 00 61") {
		t.Errorf("output %q", r.out)
	}
}

func testInputEnd(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	r := session(t, c).exec("cat")
	r.write("all of\x00it")
	r.ends(0, "all of\x00it", "")

	// The end of stdin is not the program's: it runs, and takes signals.
	r = session(t, c).exec(`exec 2>/dev/null; trap 'echo signal; exit 7' USR1; cat; echo ended; while :; do sleep 0.05; done 2>&-`)
	_ = r.in.Close()
	r.out.Expect(t, "ended")
	if err := r.OnSignal(1, "USR1"); err != nil {
		t.Fatal(err)
	}
	r.ends(7, "ended\nsignal\n", "")

	// A program that does not read.
	r = session(t, c).exec("exec <&-; sleep 0.2; echo done")
	r.write(strings.Repeat("x", 1<<20))
	_ = r.in.Close()
	// podman says on stderr that it could not write.
	if got := r.wait(); got != 0 || r.out.String() != "done\n" || !w.real && r.errs.String() != "" {
		t.Errorf("status %d, output %q, errors %q", got, r.out, r.errs)
	}
}

func testSignals(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	for _, name := range []string{"TERM", "KILL", "HUP", "INT", "QUIT", "USR1"} {
		r := session(t, c).exec("echo ready; exec sleep 1000")
		r.out.Expect(t, "ready")
		if err := r.OnSignal(1, name); err != nil {
			t.Fatal(err)
		}
		if status := r.wait(); r.ExitSignal() != name || status <= 128 {
			t.Errorf("%s: status %d, signal %q", name, status, r.ExitSignal())
		}
		if err := r.OnSignal(1, name); err == nil {
			t.Errorf("%s was sent to a program that has ended", name)
		}
	}
	r := session(t, c).exec("kill -TERM $$")
	if _ = r.wait(); r.ExitSignal() != "TERM" {
		t.Errorf("signal %q, want TERM", r.ExitSignal())
	}
	r = session(t, c)
	if err := r.OnSignal(1, "TERM"); err == nil {
		t.Error("a signal was sent before the program")
	}
	r.exec("sleep 0.2")
	if err := r.OnSignal(1, "STOP"); err == nil {
		t.Error("a signal that SSH does not know was sent")
	}
	r.ends(0, "", "")
}

func testBulk(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	sent := make([]byte, w.bulk)
	_, _ = rand.Read(sent)
	r := session(t, c).exec("tee /dev/stderr")
	if _, err := r.in.Write(sent); err != nil {
		t.Fatal(err)
	}
	_ = r.in.Close()
	if got := r.wait(); got != 0 {
		t.Errorf("status %d", got)
	}
	if out, errs := r.out.String(), r.errs.String(); out != string(sent) || errs != string(sent) {
		t.Errorf("sent %d bytes, got %d and %d, or others", len(sent), len(out), len(errs))
	}
}

// A program whose client is gone does not run on.
func testLeft(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	for _, line := range []string{
		"echo $$; exec sleep 1000",
		"trap '' HUP; echo $$; while :; do sleep 0.1; done",
	} {
		r := session(t, c).exec(line)
		pid := strings.TrimSpace(r.out.Expect(t, "\n"))
		r.close()
		session(t, c).exec("kill -0 "+pid+" 2>/dev/null").ends(1, "", "")
	}
	// Neither does one whose output nobody takes.
	in, wr := io.Pipe()
	t.Cleanup(func() { _ = wr.Close() })
	s, err := c.OnSessionChannel(9, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan container.ExitStatus, 1)
	if err := s.OnExecRequest(1, "yes", in, broken{}, broken{}, func(s container.ExitStatus) { ended <- s }); err != nil {
		t.Fatal(err)
	}
	<-ended
	_ = wr.Close()
	s.OnClose()
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func testShutdown(t *testing.T, w *world) {
	h, c := connect(t, w.config(w.shell))
	r := session(t, c).exec("trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
	r.out.Expect(t, "ready")
	deaf := session(t, c).exec("trap '' TERM; echo ready; while :; do sleep 0.05; done")
	deaf.out.Expect(t, "ready")
	ctx, cancel := context.WithCancel(context.Background())
	down := make(chan struct{})
	go func() {
		defer close(down)
		h.OnShutdown(ctx)
	}()
	if got := r.wait(); got != 9 || !strings.Contains(r.out.String(), "bye") {
		t.Errorf("status %d, output %q", got, r.out)
	}
	// It waits for the one that does not end, but holds nothing up: other
	// methods go on.
	if err := deaf.OnSignal(1, "USR2"); err != nil {
		t.Error(err)
	}
	if _, err := c.OnSessionChannel(3, nil); err == nil {
		t.Error("a session was begun after the shutdown")
	}
	cancel()
	<-down
	if got := deaf.wait(); got <= 128 {
		t.Errorf("status %d of USR2", got)
	}
}

func testSFTP(t *testing.T, w *world) {
	for _, image := range []string{w.shell, w.empty} {
		_, c := connect(t, w.config(image))
		s, err := c.OnSessionChannel(1, nil)
		if err != nil {
			t.Fatal(err)
		}
		in, toServer := io.Pipe()
		fromServer, out := io.Pipe()
		status := make(chan container.ExitStatus, 1)
		if err := s.OnSubsystem(1, "sftp", in, out, io.Discard, func(s container.ExitStatus) {
			_ = out.Close()
			status <- s
		}); err != nil {
			t.Fatal(err)
		}
		client, err := sftp.NewClientPipe(fromServer, toServer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Getwd(); err != nil {
			t.Error(err)
		}
		if list, err := client.ReadDir("/"); err != nil || len(list) == 0 {
			t.Errorf("%d entries, %v", len(list), err)
		}
		_ = client.Close()
		if got := <-status; got != 0 {
			t.Errorf("status %d", got)
		}
		s.OnClose()
	}
	_, c := connect(t, w.config(w.shell))
	if err := session(t, c).OnSubsystem(1, "netconf", strings.NewReader(""), io.Discard, io.Discard, nil); err == nil {
		t.Error("a subsystem was started that is not there")
	}
}

// An image with nothing in it.
func testEmpty(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.empty))
	r := session(t, c)
	err := r.OnShell(1, strings.NewReader(""), io.Discard, io.Discard, nil)
	if err == nil || !strings.Contains(err.Error(), "no shell") {
		t.Errorf("a shell: %v", err)
	}
	// The same session may do something else.
	in, wr := io.Pipe()
	r.in = wr
	guest := guestIn(t, c)
	if err := r.OnProgram(1, []string{guest, "-h"}, in, r.out, r.errs, r.exit); err != nil {
		t.Fatal(err)
	}
	if status := r.wait(); status != 0 || !strings.Contains(r.errs.String(), "forward-server") {
		t.Errorf("status %d, errors %q", status, r.errs)
	}
}

// guestIn returns where the guest was copied to.
func guestIn(t *testing.T, c *container.Connection) string {
	s, err := c.OnSessionChannel(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.OnClose()
	in, toServer := io.Pipe()
	fromServer, out := io.Pipe()
	if err := s.OnSubsystem(1, "sftp", in, out, io.Discard, func(container.ExitStatus) { _ = out.Close() }); err != nil {
		t.Fatal(err)
	}
	client, err := sftp.NewClientPipe(fromServer, toServer)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	target, err := client.ReadLink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// Nothing can be copied into a root that is read-only, but it is there.
func testReadOnly(t *testing.T, w *world) {
	cfg := w.config(w.shell)
	cfg.Execution.Host.ReadonlyRootfs = true
	_, c := connect(t, cfg)
	session(t, c).exec("echo works").ends(0, "works\n", "")
}

func testMany(t *testing.T, w *world) {
	before := container.Open()
	atOnce(t, w.many, w.config(w.shell))
	if n := container.Open(); n != before {
		t.Errorf("%d containers are counted as open, and were %d", n, before)
	}
}

// atOnce makes n connections at once, each of which runs a program.
func atOnce(t *testing.T, n int, cfg container.Config) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			h, err := container.New(client, fmt.Sprint("many-", i), cfg, nil, nil, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer h.OnDisconnect()
			c, err := h.OnHandshakeSuccess("user")
			if err != nil {
				t.Error(err)
				return
			}
			s, err := c.OnSessionChannel(0, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.OnClose()
			out, done := &watchtest.Output{}, make(chan container.ExitStatus, 1)
			line := fmt.Sprintf("cat; exit %d", i)
			if err := s.OnExecRequest(0, line, strings.NewReader(line), out, io.Discard, func(s container.ExitStatus) { done <- s }); err != nil {
				t.Error(err)
				return
			}
			if got := <-done; got != container.ExitStatus(i) || out.String() != line {
				t.Errorf("connection %d: status %d, output %q", i, got, out)
			}
		})
	}
	wg.Wait()
}
