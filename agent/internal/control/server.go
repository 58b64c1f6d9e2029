package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Handler answers a request, which is valid. It may be called concurrently; ctx
// ends with the client's patience.
type Handler func(ctx context.Context, r Request) Response

// Server keeps a door open until Close.
type Server struct {
	log    *slog.Logger
	door   *door
	handle Handler

	ctx     context.Context // ends the conversations some time after Close
	cancel  context.CancelFunc
	closing chan struct{}
	slots   chan struct{}
	wg      sync.WaitGroup
	once    sync.Once
}

// door is the platform's listener. accept returns a connection of the same user
// (or root), or errStranger for somebody else's; it returns net.ErrClosed once
// close was called. close also removes what leads to the door.
type door struct {
	accept func() (net.Conn, error)
	close  func()
}

// errStranger is the error of accept for a peer who may not come in.
var errStranger = errors.New("the peer is another user")

// Listen opens the door of the agent whose folder is dir. logger may be nil. The
// error says why this user has no place for a socket.
func Listen(dir string, handle Handler, logger *slog.Logger) (*Server, error) {
	return listen(dir, handle, logger, Environment())
}

func listen(dir string, handle Handler, logger *slog.Logger, env Env) (*Server, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	d, err := open(dir, env)
	if err != nil {
		return nil, fmt.Errorf("cannot take local commands: %w", err)
	}
	s := &Server{
		log: logger, door: d, handle: handle,
		closing: make(chan struct{}), slots: make(chan struct{}, maxConnections),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.serve)
	return s, nil
}

// serve takes clients until Close. An accept that fails for another reason than
// that is tried again, at growing intervals: descriptors may be used up for now.
func (s *Server) serve() {
	var pause time.Duration
	for {
		conn, err := s.door.accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, errStranger):
			s.log.Warn("a local command of another user was refused")
			continue
		case err != nil:
			pause = min(max(2*pause, 10*time.Millisecond), time.Second)
			s.log.Debug("a local command could not be accepted", "err", err)
			select {
			case <-time.After(pause):
				continue
			case <-s.closing:
				return
			}
		}
		pause = 0
		select {
		case s.slots <- struct{}{}:
		case <-s.closing:
			conn.Close()
			return
		}
		s.wg.Go(func() {
			defer func() { <-s.slots }()
			s.converse(conn)
		})
	}
}

// converse serves one client.
func (s *Server) converse(conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	// An error means that the connection is closed; the next read says so.
	_ = conn.SetDeadline(time.Now().Add(patience))
	defer context.AfterFunc(s.ctx, func() { conn.Close() })()
	var request Request
	err := receive(conn, &request)
	if err == nil {
		err = request.validate()
	} else if !errors.Is(err, ErrMessage) {
		return // a client that looked whether somebody is here
	}
	response := Response{}
	if err != nil {
		response.Error = err.Error()
	} else {
		response = s.handle(ctx, request)
	}
	if err := send(conn, response); err != nil {
		s.log.Debug("a local command was not answered", "op", request.Op, "err", err)
	}
}

// Close shuts the door, removes its traces, and returns when all conversations
// are over; those under way have a second. It may be called more than once.
func (s *Server) Close() {
	s.once.Do(func() {
		close(s.closing)
		s.door.close()
		timer := time.AfterFunc(lastWords, s.cancel)
		s.wg.Wait()
		timer.Stop()
		s.cancel()
	})
}
