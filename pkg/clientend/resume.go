package clientend

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/resume"
	"example.com/converge/pkg/transport"
)

// Resumption says how a stream outlives its connection. Where the server or
// the agent does not know how, the stream is a plain one.
type Resumption struct {
	// Window is how long a stream waits for a new connection; the agent's is
	// the limit where that is shorter. 0 offers no resumption.
	Window time.Duration
	// Buffer bounds what each direction holds, in bytes; 0 is
	// resume.DefaultBuffer.
	Buffer int
	// Ping is the mean interval of pings; 0 is resume.DefaultPing.
	Ping time.Duration
}

// errPlain is for a server or agent that has spoken the protocol before.
var errPlain = errors.New("there is an agent that does not know the session, or a server that does not let it through")

// resumable makes a resumable stream that begins on conn, whose session is id.
func (t *Target) resumable(ctx context.Context, conn net.Conn, id string, on *Events) (net.Conn, error) {
	first := conn
	stream, err := resume.Client(ctx, resume.Config{
		Dial: func(ctx context.Context) (net.Conn, error) {
			if first != nil {
				conn := first
				first = nil
				return conn, nil
			}
			return t.again(ctx, id, on)
		},
		Permanent: permanent,
		Pin:       t.pin,
		Window:    t.resumption.Window,
		Buffer:    t.resumption.Buffer,
		Ping:      t.resumption.Ping,
		Notice:    on.notice(),
	})
	switch {
	case err == nil:
		return stream, nil
	case ownWords(err):
		return nil, err
	}
	return nil, transport.Explain(t.name, err)
}

// again makes another connection for a stream: nothing of the first one's is
// used, neither its address nor its connection. Only its session's id is named,
// for the server's log.
func (t *Target) again(ctx context.Context, id string, on *Events) (net.Conn, error) {
	header := t.header.Clone()
	if id != "" {
		if header == nil {
			header = http.Header{}
		}
		header.Set(rendezvous.SessionHeader, id)
	}
	conn, err := frame.Dial(ctx, t.url, t.transport, header, frame.Options{}, resume.Protocol)
	if err != nil {
		return nil, transport.Explain(t.name, err)
	}
	if conn.Protocol() != resume.Protocol {
		_ = conn.Close()
		return nil, errPlain
	}
	on.session(conn, id)
	return conn, nil
}

// permanent reports whether further attempts are useless. A path or id that is
// not there may be soon: the agent may come back later than its client, and a
// proxy be there before its server.
func permanent(err error) bool {
	var refused *transport.RefusedError
	if !errors.As(err, &refused) {
		return transport.Permanent(err) // untrusted TLS
	}
	switch refused.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return true
	}
	return false
}

// isResumable reports whether a far end is a resumable stream, whose errors say
// what became of it.
func isResumable(remote any) bool {
	_, ok := remote.(*resume.Stream)
	return ok
}

// ownWords reports whether an error of a resumable stream is a sentence of its
// own that says what to do.
func ownWords(err error) bool {
	for _, known := range []error{
		resume.ErrPin, resume.ErrSignature, resume.ErrVersion, resume.ErrFull, resume.ErrGone,
		resume.ErrExpired, resume.ErrEvicted, resume.ErrProtocol,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
