package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"example.com/converge/agent/internal/link"
	"example.com/converge/pkg/resume"
	"example.com/converge/pkg/transport"
)

// streamsWait bounds the delivery of what was said last, once the SSH sessions
// have ended.
const streamsWait = 250 * time.Millisecond

// Resume says how the streams of clients that can outlive their connections.
type Resume struct {
	// Window is how long a client may be away; 0 lets streams end with their
	// connections.
	Window time.Duration
	// Buffer is how much a direction of a stream holds at most, in bytes; 0 is
	// resume.DefaultBuffer.
	Buffer int
}

// resumable makes the end of the resumable streams, and has the link announce
// it.
func (r *run) resumable(cfg *Config) error {
	if cfg.Resume.Window == 0 {
		return nil
	}
	var err error
	r.hub, err = resume.NewHub(resume.HubConfig{
		Signer: cfg.SSH.HostKey, Window: cfg.Resume.Window, Buffer: cfg.Resume.Buffer,
		Notice: r.noticed,
	})
	if err != nil {
		return fmt.Errorf("%w, or turn resumption off with --resume-window 0", err)
	}
	cfg.Link.Protocols = []string{resume.Protocol}
	return nil
}

// serve serves one connection of a client. It returns when the client has gone,
// or when the connection is one on which a stream goes on: that has a Serve of
// its own already.
func (r *run) serve(conn net.Conn, client link.Client) {
	if client.Protocol != resume.Protocol {
		r.log.Debug("a client is there", "session", client.Session, "remote", client.Remote)
		r.sshd.HandleConn(visitor{conn, client})
		return
	}
	if client.Full {
		stream, err := r.hub.Resume(conn)
		r.goesOn(stream, client, err)
		return
	}
	stream, isNew, err := r.hub.Accept(conn)
	if err != nil || !isNew {
		r.goesOn(stream, client, err)
		return
	}
	r.log.Debug("a client is there", "session", client.Session, "remote", client.Remote)
	r.began(stream, client.Session)
	r.sshd.HandleConn(caller{stream, client})
	// Its client may have something to get still. Until then it has its place:
	// nobody can have more streams than there are places.
	<-stream.Done()
	r.ended(stream)
}

// began remembers with which session a stream began.
func (r *run) began(s *resume.Stream, session string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions == nil {
		r.sessions = map[*resume.Stream]string{}
	}
	r.sessions[s] = session
}

func (r *run) ended(s *resume.Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s)
}

// sessionOf is the session with which a stream began.
func (r *run) sessionOf(s *resume.Stream) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[s]
}

// goesOn logs that a stream goes on, on another connection, or why it does not.
func (r *run) goesOn(s *resume.Stream, client link.Client, err error) {
	if err != nil {
		r.refused(client, err)
		return
	}
	r.log.Info("a client's session goes on", "session", client.Session, "first", r.sessionOf(s), "remote", client.Remote)
}

func (r *run) refused(client link.Client, err error) {
	if err != nil && !errors.Is(err, resume.ErrHubClosed) {
		r.log.Info("a client's connection was of no use", "session", client.Session, "remote", client.Remote, "err", err)
	}
}

// noticed tells that a client is away, or back.
func (r *run) noticed(s *resume.Stream, n resume.Notice) {
	if n.State == resume.Stalled {
		why := ""
		if n.Err != nil {
			why = transport.Printable(n.Err.Error())
		}
		r.log.Info("a client's connection was lost: its session waits", "window", n.Window, "err", why, "first", r.sessionOf(s))
		return
	}
	r.log.Info("a client is back", "first", r.sessionOf(s))
}

// endStreams ends all streams, when the SSH sessions have ended. The clients
// that are there get what was written last, within the time that ctx has left
// or a moment.
func (r *run) endStreams(ctx context.Context) {
	if r.hub == nil {
		return
	}
	until := time.Now().Add(streamsWait)
	if limit, ok := ctx.Deadline(); ok && limit.After(until) {
		until = limit
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	defer cancel()
	if err := r.hub.Close(ctx); err != nil {
		r.log.Info("not every client got everything", "err", err)
	}
}

// visitor is a client's connection with the client's own address.
type visitor struct {
	net.Conn
	client link.Client
}

// RemoteAddr is where the client came from, as the server saw it.
func (v visitor) RemoteAddr() net.Addr { return clientAddr(v.client.Remote) }

// Session is the id of the client's session.
func (v visitor) Session() string { return v.client.Session }

// caller is the like for a resumable stream: the address is that of its first
// connection.
type caller struct {
	*resume.Stream
	client link.Client
}

// RemoteAddr is where the client came from, as the server saw it.
func (c caller) RemoteAddr() net.Addr { return clientAddr(c.client.Remote) }

// Session is the id of the session with which the stream began.
func (c caller) Session() string { return c.client.Session }

type clientAddr string

func (clientAddr) Network() string  { return "converge" }
func (a clientAddr) String() string { return cmp.Or(string(a), "an unknown address") }
