// Package clientend is what the two client programs share: the way from a
// client URL to a stream of bytes, and the joining of that stream with a local
// one. It knows nothing of SSH.
package clientend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/pin"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/resume"
	"example.com/converge/pkg/transport"
	"example.com/converge/pkg/wsconn"
)

// Target is where a client connects to. Its methods may be called
// concurrently.
type Target struct {
	url        string
	name       string // the URL as messages show it
	raw        bool
	pin        pin.Pin
	transport  *http.Transport
	header     http.Header
	resumption Resumption
}

// NewTarget checks the URL: in raw mode any ws or wss URL will do, otherwise
// it must be ws[s]://HOST/client/ID, with or without the agent's pin as its
// fragment. The error is the user's to mend.
func NewTarget(rawURL string, raw bool) (*Target, error) {
	rawURL, fragment, pinned := strings.Cut(rawURL, "#")
	if raw {
		if pinned {
			return nil, errors.New("the URL names the agent's key (#…), which only Converge's own stream can check: leave --raw out, or the # and what follows")
		}
		u, err := rendezvous.CheckURL(rawURL)
		if err != nil {
			return nil, err
		}
		u.RawQuery, u.ForceQuery = "", false // it may hold a secret
		return &Target{url: rawURL, name: u.String(), raw: true}, nil
	}
	server, id, err := rendezvous.ParseClientURL(rawURL)
	if err != nil {
		return nil, err
	}
	var key pin.Pin
	if pinned {
		if key, err = pin.Parse(fragment); err != nil {
			return nil, fmt.Errorf("cannot use what follows the # of the URL: %w", err)
		}
	}
	rawURL = server.ClientURL(id)
	return &Target{url: rawURL, name: rawURL, pin: key}, nil
}

// Use sets how to connect. It must come before the first Dial. The error
// names what cannot be used.
func (t *Target) Use(o transport.Options, r Resumption) error {
	tr, err := o.Transport(t.url)
	t.transport, t.header, t.resumption = tr, o.Header, r
	return err
}

// Events are what a caller of Dial may want to know. Nil ones, and a nil
// *Events, are for who does not.
type Events struct {
	// Notice is called when a stream that outlives its connection stalls and
	// when it is back: see resume.Config.
	Notice func(resume.Notice)
	// Session is called for each connection that has been made, before Dial
	// returns or the stream goes on: with the id that the server has for it,
	// by which logs can be put together, and with that of the stream's first
	// connection, where that is another. A server that has no ids, or a raw
	// connection, is no reason to call it.
	Session func(id, first string)
}

func (e *Events) notice() func(resume.Notice) {
	if e == nil {
		return nil
	}
	return e.Notice
}

// session tells a connection's id and returns it, "" if it has none.
func (e *Events) session(conn *frame.Conn, first string) string {
	id := conn.Answer().Get(rendezvous.SessionHeader)
	if !rendezvous.ValidSession(id) {
		return ""
	}
	if e != nil && e.Session != nil {
		e.Session(id, first)
	}
	return id
}

// Dial connects; ctx bounds the handshake only. The error is one sentence
// that says what to do. In raw mode the stream is the plain adapter's and
// speaks with any websocket server; otherwise it can also end one direction
// by CloseWrite, and outlives its connection where the agent takes part in
// that. Then it has made sure of the agent's key if the URL has a pin.
func (t *Target) Dial(ctx context.Context, on *Events) (net.Conn, error) {
	if t.raw {
		conn, err := wsconn.Dial(ctx, t.url, t.transport, t.header, wsconn.Options{})
		if err != nil {
			return nil, transport.Explain(t.name, err)
		}
		return conn, nil
	}
	var offer []string
	if t.resumption.Window > 0 {
		offer = []string{resume.Protocol}
	}
	conn, err := frame.Dial(ctx, t.url, t.transport, t.header, frame.Options{}, offer...)
	if err != nil {
		return nil, transport.Explain(t.name, err)
	}
	id := on.session(conn, "")
	if conn.Protocol() == resume.Protocol {
		return t.resumable(ctx, conn, id, on)
	}
	return conn, nil
}
