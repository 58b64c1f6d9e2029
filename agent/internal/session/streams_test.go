//go:build unix

package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/servertest"
	"example.com/converge/pkg/expiry"
	"example.com/converge/pkg/pin"
	"example.com/converge/pkg/resume"
)

// resumable lets streams outlive their connections.
func resumable(c *Config) { c.Resume.Window = resume.DefaultWindow }

// traveller is a client whose network comes and goes.
type traveller struct {
	*ssh.Client
	stream *resume.Stream
	agent  *agent

	mu   sync.Mutex
	away bool
	conn *servertest.Data // the present one
}

func (c *traveller) dial(ctx context.Context) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, fmt.Errorf("no network")
	}
	data, err := c.agent.server.VisitAs(ctx, c.agent.control, remote, resume.Protocol)
	if err != nil {
		return nil, err
	}
	c.conn = data
	return data, nil
}

// leave cuts the connection, and comeBack lets it be made again.
func (c *traveller) leave() {
	c.mu.Lock()
	c.away = true
	conn := c.conn
	c.mu.Unlock()
	_ = conn.Close()
}

func (c *traveller) comeBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = false
}

// travel logs in over a resumable stream whose end is not to be delivered, since
// its client is away then.
func (a *agent) travel() *traveller {
	a.t.Helper()
	return a.travelWith(time.Millisecond)
}

// travelAndReturn is travel for a client that is there at its end, and says so.
func (a *agent) travelAndReturn() *traveller {
	a.t.Helper()
	return a.travelWith(patience)
}

func (a *agent) travelWith(linger time.Duration) *traveller {
	a.t.Helper()
	c := &traveller{agent: a}
	var err error
	c.stream, err = resume.Client(a.context(), resume.Config{
		Dial: c.dial, Pin: pin.Of(a.host), Linger: linger,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = c.stream.Close() })
	stop := context.AfterFunc(a.context(), func() { _ = c.stream.Close() })
	defer stop()
	conn, channels, requests, err := ssh.NewClientConn(c.stream, remote, &ssh.ClientConfig{
		User: "abc", Auth: []ssh.AuthMethod{ssh.PublicKeys(a.user)}, HostKeyCallback: ssh.FixedHostKey(a.host),
	})
	if err != nil {
		a.t.Fatal(err)
	}
	c.Client = ssh.NewClient(conn, channels, requests)
	a.t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestAway has a shell go on where it was, at another connection; meanwhile
// others see that its user is away, and nobody has logged out.
func TestAway(t *testing.T) {
	a := start(t, resumable)
	c := a.travelAndReturn()
	if hello := a.control.Hello; len(hello.Protocols) != 1 || hello.Protocols[0] != resume.Protocol {
		t.Errorf("the agent speaks %q", hello.Protocols)
	}
	s := a.shell(c.Client)
	s.typeIn("value=kept\n")
	for i := range 3 {
		c.leave()
		a.logged(fmt.Sprintf(`(?s)(a client's connection was lost: its session waits" window=5m0s.*){%d}`, i+1))
		s.typeIn(fmt.Sprintf("echo ra''n %d $value\n", i)) // it gets there later
		c.comeBack()
		s.shows(fmt.Sprintf("ran %d kept", i))
	}
	a.logged("(?s)(a client is back.*){3}")
	c.leave()
	a.logged("(?s)(its session waits.*){4}")
	plain := a.login()
	if out := a.shell(plain).out.String(); !strings.Contains(out, "Also here: abc from "+remote) || !strings.Contains(out, ", connection lost\r\n") {
		t.Errorf("the greeting is %q", out)
	}
	if strings.Contains(a.out.String(), "logged out") {
		t.Errorf("somebody is said to have logged out: %q", a.out)
	}
	c.comeBack()
	_ = plain.Close()
	s.leave(c.Client)
	a.ends(0)
	if strings.Count(a.out.String(), "abc logged in") != 2 || strings.Count(a.out.String(), "abc from "+remote+" logged out") != 2 {
		t.Errorf("it said %q", a.out)
	}
}

// TestPlainBeside: who knows nothing of resumption is served as ever.
func TestPlainBeside(t *testing.T) {
	a := start(t, resumable)
	client := a.login()
	if out := a.run(client, "echo plain"); out != "plain\n" {
		t.Errorf("got %q", out)
	}
	_ = client.Close()
	a.ends(0)
}

// TestResumptionOff: an agent without it does not announce it.
func TestResumptionOff(t *testing.T) {
	a := start(t, nil)
	if p := a.control.Hello.Protocols; len(p) > 0 {
		t.Errorf("the agent speaks %q", p)
	}
}

// TestAwayForGood: a client that stays away has logged out when the window ends.
func TestAwayForGood(t *testing.T) {
	a := start(t, func(c *Config) { c.Resume.Window = time.Second })
	c := a.travel()
	s := a.shell(c.Client)
	c.leave()
	a.said("logged out")
	s.a.ends(0)
	if !strings.Contains(a.atBye, "logged out\n") {
		t.Errorf("at the goodbye to the server it had said %q", a.atBye)
	}
}

// TestLeavesAtOnce: a client that closes its stream is gone, whatever the
// window.
func TestLeavesAtOnce(t *testing.T) {
	a := start(t, resumable)
	c := a.travelAndReturn()
	s := a.shell(c.Client)
	go func() { _, _ = io.Copy(io.Discard, c.stream) }()
	_ = c.stream.Close()
	a.said("logged out")
	_ = s.Wait()
	a.ends(0)
}

// TestExpiresWhileAway: time goes on while nobody is there, and the end does
// not wait for who is away.
func TestExpiresWhileAway(t *testing.T) {
	dir := t.TempDir()
	a := start(t, func(c *Config) {
		resumable(c)
		c.AgentDir, c.TimeoutExitCode = dir, 42
		c.Expiry = expiry.Config{Expiry: 1, FirstConnect: time.Hour, Keep: true}
	})
	touch(t, dir, 1000*time.Hour)
	a.logged(`msg=deadline`)
	c := a.travel()
	s := a.shell(c.Client)
	s.typeIn("yes\n") // more than a buffer holds
	s.shows("(y\r\n){100}")
	c.leave()
	a.logged("its session waits")
	if err := os.Remove(dir + "/.hold"); err != nil {
		t.Fatal(err)
	}
	a.ends(42)
}

// TestEndIsTold: those who are there get the reason of the end, and the rest
// that the stream holds.
func TestEndIsTold(t *testing.T) {
	a := start(t, resumable)
	here, away := a.travel(), a.travel()
	s := a.shell(here.Client)
	a.shell(away.Client)
	away.leave()
	a.logged("its session waits")
	a.stop()
	s.shows("The session ended because the agent was told to stop by a signal.")
	a.ends(0)
}

// TestNoRoom bounds streams as it does clients, and lets those that are there
// come back.
func TestNoRoom(t *testing.T) {
	a := start(t, resumable)
	travellers := []*traveller{a.travelAndReturn()}
	for len(travellers) < maxStreams {
		travellers = append(travellers, a.travel())
	}
	stranger := func() (*resume.Stream, error) {
		return resume.Client(a.context(), resume.Config{
			Pin: pin.Of(a.host), Linger: time.Millisecond,
			Dial: func(ctx context.Context) (net.Conn, error) {
				return a.server.VisitAs(ctx, a.control, remote, resume.Protocol)
			},
		})
	}
	if _, err := stranger(); !errors.Is(err, resume.ErrFull) {
		t.Fatalf("one too many: %v", err)
	}
	for i, c := range travellers[:3] {
		c.leave()
		a.logged(fmt.Sprintf("(?s)(its session waits.*){%d}", i+1))
		c.comeBack()
		if out := a.run(c.Client, "echo here"); out != "here\n" {
			t.Errorf("client %d: %q", i, out)
		}
	}
	// Whoever leaves makes room.
	_ = travellers[0].stream.Close()
	a.said("logged out")
	s, err := stranger()
	for errors.Is(err, resume.ErrFull) { // the place is free a moment later
		s, err = stranger()
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
}

// maxStreams is how many clients the link lets in.
const maxStreams = 128
