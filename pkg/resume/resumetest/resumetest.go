// Package resumetest is a websocket server and the agent behind it, for tests
// of clients that speak the resumable stream: it does to their connections
// what servers and networks do. It must not be part of a program.
package resumetest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/pin"
	"example.com/converge/pkg/resume"
)

// Plain makes Answer's next connection one to an agent without resumption: it
// gets the word plain and is closed.
const Plain = http.StatusOK

// Far is the far end of clients. Its agent sends back what comes on a stream.
type Far struct {
	*httptest.Server
	// Key is the agent's host key.
	Key ssh.PublicKey
	// Streams has those that clients have opened, for tests to look at; 16 at
	// most are kept.
	Streams chan *resume.Stream

	handlers sync.WaitGroup

	mu      sync.Mutex
	hubs    []*resume.Hub // the last one is the present agent's
	asked   []*http.Request
	instead []int
	down    bool
	refused int // since the last Cut, because of down
	conns   []*frame.Conn
}

// New starts one with an agent that has a fresh host key. End it.
func New(cfg resume.HubConfig) (*Far, error) {
	f := &Far{Streams: make(chan *resume.Stream, 16)}
	if err := f.Restart(cfg); err != nil {
		return nil, err
	}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	return f, nil
}

// Restart puts another agent in the place of the present one.
func (f *Far) Restart(cfg resume.HubConfig) error {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	if cfg.Signer, err = ssh.NewSignerFromKey(private); err != nil {
		return err
	}
	hub, err := resume.NewHub(cfg)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hubs, f.Key = append(f.hubs, hub), cfg.Signer.PublicKey()
	return nil
}

// End ends everything.
func (f *Far) End() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, hub := range f.hubs {
		_ = hub.Close(ctx)
	}
	f.CloseClientConnections()
	f.Close()
	f.handlers.Wait()
}

// ClientURL is the client's URL of the agent.
func (f *Far) ClientURL() string {
	return "ws" + strings.TrimPrefix(f.URL, "http") + "/client/id"
}

// Pin is the agent's, as a fragment.
func (f *Far) Pin() string { return "#" + pin.Of(f.Key).String() }

// Answer has the next requests answered with these HTTP status codes in place
// of a websocket.
func (f *Far) Answer(codes ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instead = codes
}

// Down has all requests answered with 502 while it is true.
func (f *Far) Down(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

// Stall waits until the newest client has tried so often to come back, in vain
// since the last Cut, that it has told its user of the stall; false after a
// minute.
func (f *Far) Stall() bool {
	// The pauses between so many attempts are longer together than the time
	// after which a stall is told.
	const attempts = 8
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 6000 {
		f.mu.Lock()
		n := f.refused
		f.mu.Unlock()
		if n >= attempts {
			return true
		}
		<-tick.C
	}
	return false
}

// Cut ends the newest connection.
func (f *Far) Cut() {
	f.mu.Lock()
	conn := f.conns[len(f.conns)-1]
	f.refused = 0
	f.mu.Unlock()
	_ = conn.CloseWith(frame.CloseServiceRestart, "the server is restarting")
}

// Requests returns those that have come.
func (f *Far) Requests() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

func (f *Far) serve(w http.ResponseWriter, r *http.Request) {
	f.handlers.Add(1)
	defer f.handlers.Done()
	f.mu.Lock()
	f.asked = append(f.asked, r)
	status := 0
	switch {
	case f.down:
		status = http.StatusBadGateway
		f.refused++
	case len(f.instead) > 0:
		status, f.instead = f.instead[0], f.instead[1:]
	}
	hub := f.hubs[len(f.hubs)-1]
	f.mu.Unlock()
	protocol := resume.Protocol
	switch {
	case status == Plain || !frame.Offered(r, protocol):
		protocol = ""
	case status != 0:
		http.Error(w, fmt.Sprintf("the answer is %d", status), status)
		return
	}
	peer, err := frame.Accept(w, r, protocol)
	if err != nil {
		return
	}
	conn := frame.Server(peer.Conn, io.MultiReader(bytes.NewReader(peer.Early), peer.Conn), frame.Options{})
	if protocol == "" {
		_, _ = io.WriteString(conn, "plain")
		_ = conn.Close()
		return
	}
	f.mu.Lock()
	f.conns = append(f.conns, conn)
	f.mu.Unlock()
	stream, isNew, err := hub.Accept(conn)
	if err != nil || !isNew {
		return
	}
	select {
	case f.Streams <- stream:
	default:
	}
	_, _ = io.Copy(stream, stream)
	_ = stream.Close()
}
