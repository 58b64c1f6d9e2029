//go:build unix

package container_test

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"example.com/converge/container"
	"example.com/converge/pkg/watchtest"
)

// patience is how long a test waits for what must come.
const patience = 2 * time.Minute

// world is an engine that the suite runs against.
type world struct {
	host string
	// shell is an image with a shell and the usual programs, whose CMD is
	// that shell; empty is one with nothing at all.
	shell, empty string
	// left returns the names of containers that are there.
	left func(t *testing.T) []string
	// many is how many connections are made at once.
	many int
	// bulk is how much is sent at once, in bytes.
	bulk int
	// real says that containers are such, and not processes of this machine.
	real bool
}

// config is a configuration for an image, into which the guest is copied.
func (w *world) config(image string) container.Config {
	var cfg container.Config
	cfg.Connection.Host = w.host
	cfg.Execution.Image = image
	cfg.Execution.ImagePullPolicy = container.PullNever
	cfg.Execution.GuestFile = guestFile
	cfg.Execution.GuestSFTP = []string{"sftp-server"}
	cfg.Execution.Host.NetworkMode = "none"
	// Docker turns IPv6 off where there is no network, on loopback too.
	cfg.Execution.Host.Sysctls = map[string]string{"net.ipv6.conf.all.disable_ipv6": "0"}
	return cfg
}

var client = net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 2222}

// connect begins a connection, which ends with the test.
func connect(t testing.TB, cfg container.Config) (*container.Handler, *container.Connection) {
	t.Helper()
	h, err := container.New(client, "c-"+t.Name(), cfg, logger(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.OnDisconnect)
	c, err := h.OnHandshakeSuccess("user")
	if err != nil {
		t.Fatal(err)
	}
	return h, c
}

// run is a program of a session.
type run struct {
	*container.Session
	t      testing.TB
	in     *io.PipeWriter
	out    *watchtest.Output
	errs   *watchtest.Output
	status chan container.ExitStatus
}

// session begins a session, which ends with the test.
func session(t testing.TB, c *container.Connection) *run {
	t.Helper()
	s, err := c.OnSessionChannel(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{Session: s, t: t, out: &watchtest.Output{}, errs: &watchtest.Output{}, status: make(chan container.ExitStatus, 1)}
	t.Cleanup(r.close)
	return r
}

// close ends the session as an SSH server does when the channel is closed.
func (r *run) close() {
	if r.in != nil {
		_ = r.in.Close()
	}
	r.OnClose()
}

func (r *run) exit(s container.ExitStatus) { r.status <- s }

// exec starts a command line.
func (r *run) exec(line string) *run {
	r.t.Helper()
	in, w := io.Pipe()
	r.in = w
	if err := r.OnExecRequest(2, line, in, r.out, r.errs, r.exit); err != nil {
		r.t.Fatal(err)
	}
	return r
}

// shell starts a shell.
func (r *run) shell() *run {
	r.t.Helper()
	in, w := io.Pipe()
	r.in = w
	if err := r.OnShell(2, in, r.out, r.errs, r.exit); err != nil {
		r.t.Fatal(err)
	}
	return r
}

// terminal asks for a terminal.
func (r *run) terminal(columns, rows uint32) *run {
	r.t.Helper()
	if err := r.OnPtyRequest(1, "xterm", columns, rows, 0, 0, nil); err != nil {
		r.t.Fatal(err)
	}
	return r
}

func (r *run) write(text string) {
	r.t.Helper()
	if _, err := io.WriteString(r.in, text); err != nil {
		r.t.Fatal(err)
	}
}

// wait returns how the program ended.
func (r *run) wait() container.ExitStatus {
	r.t.Helper()
	select {
	case s := <-r.status:
		return s
	case <-time.After(patience):
		r.t.Fatalf("the program does not end; output %q, errors %q", r.out, r.errs)
		return 0
	}
}

// ends checks how the program ends, and what it has said.
func (r *run) ends(status container.ExitStatus, out, errs string) {
	r.t.Helper()
	_ = r.in.Close()
	if got := r.wait(); got != status || r.out.String() != out || r.errs.String() != errs {
		r.t.Errorf("status %d, output %q, errors %q; want %d, %q, %q", got, r.out, r.errs, status, out, errs)
	}
}

// none checks that no container is left.
func (w *world) none(t *testing.T) {
	t.Helper()
	if left := w.left(t); len(left) > 0 {
		t.Errorf("left: %s", fmt.Sprint(left))
	}
}

// logger writes what is logged to the test.
func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}
