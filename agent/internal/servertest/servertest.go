// Package servertest is a rendezvous server for the agent's tests: it opens
// the websockets of the protocol, and says on them only what a test tells it
// to, right or wrong. It must not be part of a program.
package servertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/wsconn"
)

// limit bounds each wait for an agent, so that a test fails with a sentence.
const limit = time.Minute

// Server accepts agents and their dial-backs.
type Server struct {
	*httptest.Server
	// Address is where agents find it.
	Address rendezvous.Server

	raw      *recorded
	controls chan *Control
	data     chan *Data

	mu      sync.Mutex
	answer  http.HandlerFunc
	open    map[io.Closer]struct{}
	clients uint64
}

// Control is an agent's control connection.
type Control struct {
	*wsconn.Conn
	// ID is what the URL asks for, Header that of the handshake.
	ID     string
	Header http.Header
	// Hello is the agent's, once Register has returned.
	Hello *rendezvous.Hello
}

// Data is a data connection that an agent has dialled back.
type Data struct {
	*frame.Conn
	Header http.Header
}

// New starts a server on a loopback port. End stops it.
func New() *Server { return start(false, nil) }

// NewTLS starts one that speaks TLS with a certificate that nobody trusts.
func NewTLS() *Server { return start(true, nil) }

// start serves on l, or on a loopback port where that is nil.
func start(secure bool, l net.Listener) *Server {
	s := &Server{
		controls: make(chan *Control, 16), data: make(chan *Data, 16),
		open: make(map[io.Closer]struct{}),
	}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	if l != nil {
		_ = s.Listener.Close()
		s.Listener = l
	}
	s.raw = &recorded{Listener: s.Listener}
	s.Listener = s.raw
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that agents break off
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	s.Address = rendezvous.Server{Secure: secure, Host: s.Listener.Addr().String()}
	return s
}

// End closes everything.
func (s *Server) End() {
	s.Close()
	s.mu.Lock()
	var closers sync.WaitGroup
	for c := range s.open {
		closers.Go(func() { _ = c.Close() })
	}
	s.mu.Unlock()
	closers.Wait()
}

// Answer makes h answer all requests from now on in place of a websocket; nil
// ends that.
func (s *Server) Answer(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = h
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	id, isAgent := strings.CutPrefix(r.URL.Path, rendezvous.AgentPath)
	switch {
	case answer != nil:
		answer(w, r)
	case isAgent:
		conn, err := wsconn.Accept(w, r, wsconn.Options{KeepAlive: -1})
		if err != nil {
			return
		}
		s.keep(conn)
		s.controls <- &Control{Conn: conn, ID: id, Header: r.Header}
	case r.URL.Path == rendezvous.DataPath:
		peer, err := frame.Accept(w, r, "")
		if err != nil {
			return
		}
		in := io.MultiReader(bytes.NewReader(peer.Early), peer.Conn)
		conn := frame.Server(peer.Conn, in, frame.Options{Ping: -1})
		s.keep(conn)
		s.data <- &Data{conn, r.Header}
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) keep(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = struct{}{}
}

// next receives from a channel of the server.
func next[T any](ctx context.Context, what string, from <-chan T) (T, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case v := <-from:
		return v, nil
	case <-ctx.Done():
		return *new(T), context.Cause(ctx)
	case <-timer.C:
		return *new(T), fmt.Errorf("waiting for %s: nothing came within %v", what, limit)
	}
}

// Control returns the next control connection, on which nothing was said yet.
func (s *Server) Control(ctx context.Context) (*Control, error) {
	return next(ctx, "an agent", s.controls)
}

// Data returns the next data connection.
func (s *Server) Data(ctx context.Context) (*Data, error) {
	return next(ctx, "a dial-back", s.data)
}

// Registered returns the next agent, registered.
func (s *Server) Registered(ctx context.Context) (*Control, error) {
	c, err := s.Control(ctx)
	if err != nil {
		return nil, err
	}
	return c, c.Register()
}

// Visit brings a client to the agent and returns the client's connection.
func (s *Server) Visit(ctx context.Context, c *Control, remote string) (*Data, error) {
	return s.VisitAs(ctx, c, remote, "")
}

// VisitAs is Visit for a client that speaks a protocol.
func (s *Server) VisitAs(ctx context.Context, c *Control, remote, protocol string) (*Data, error) {
	s.mu.Lock()
	s.clients++
	d := rendezvous.Dial{Client: s.clients, Token: fmt.Sprintf("token-%d", s.clients), Remote: remote, Protocol: protocol}
	s.mu.Unlock()
	if err := c.Say(rendezvous.Message{Dial: &d}); err != nil {
		return nil, err
	}
	data, err := s.Data(ctx)
	if err == nil && data.Header.Get(rendezvous.TokenHeader) != d.Token {
		err = errors.New("the dial-back has another token")
	}
	return data, err
}

// Say sends a message. An agent that hangs up upon it may be faster than the
// return of the write, which is no error.
func (c *Control) Say(m rendezvous.Message) error {
	if err := c.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	return unlessGone(rendezvous.Send(c, m))
}

// SayRaw is Say for bytes that need not be a message.
func (c *Control) SayRaw(p []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	_, err := c.Write(p)
	return unlessGone(err)
}

// unlessGone leaves out errors of a connection that has ended.
func unlessGone(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && !op.Timeout() {
		return nil
	}
	return err
}

// Hear receives the agent's next message, but for those that ask for leave to
// park and that tell how it stands, which come when they will and are not
// answered.
func (c *Control) Hear() (rendezvous.Message, error) {
	for {
		m, err := c.HearAll()
		if err != nil || m.Park == nil && m.Status == nil {
			return m, err
		}
	}
}

// HearAll receives the agent's next message, whatever it is.
func (c *Control) HearAll() (rendezvous.Message, error) {
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return rendezvous.Message{}, err
	}
	return rendezvous.Receive(c)
}

// Challenge goes through hello and challenge, and checks the proof for the id
// that the agent asked for.
func (c *Control) Challenge() error {
	m, err := c.Hear()
	if err != nil || m.Hello == nil {
		return fmt.Errorf("no hello but %+v: %w", m, err)
	}
	c.Hello = m.Hello
	nonce := rendezvous.NewNonce()
	if err := c.Say(rendezvous.Message{Challenge: &rendezvous.Challenge{Version: rendezvous.Version, Nonce: nonce}}); err != nil {
		return err
	}
	m, err = c.Hear()
	if err != nil || m.Proof == nil {
		return fmt.Errorf("no proof but %+v: %w", m, err)
	}
	if !m.Proof.Verify(c.Hello.Key, nonce, c.ID) {
		return errors.New("the proof is wrong")
	}
	return nil
}

// Register goes through a whole registration.
func (c *Control) Register() error {
	if err := c.Challenge(); err != nil {
		return err
	}
	return c.Say(rendezvous.Message{Registered: &rendezvous.Registered{ID: c.ID}})
}

// Refuse goes through hello and answers it with a refusal.
func (c *Control) Refuse(code, text string) error {
	m, err := c.Hear()
	if err != nil || m.Hello == nil {
		return fmt.Errorf("no hello but %+v: %w", m, err)
	}
	c.Hello = m.Hello
	return c.Say(rendezvous.Message{Refused: &rendezvous.Refused{Code: code, Text: text}})
}
