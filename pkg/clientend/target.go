// Package clientend is what the two client programs share: the way from a
// client URL to a stream of bytes, and the joining of that stream with a local
// one. It knows nothing of SSH.
package clientend

import (
	"context"
	"net"
	"net/http"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/pkg/wsconn"
)

// Target is where a client connects to. Its methods may be called
// concurrently.
type Target struct {
	url       string
	name      string // the URL as messages show it
	raw       bool
	transport *http.Transport
	header    http.Header
}

// NewTarget checks the URL: in raw mode any ws or wss URL will do, otherwise
// it must be ws[s]://HOST/client/ID. The error is the user's to mend.
func NewTarget(rawURL string, raw bool) (*Target, error) {
	if raw {
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
	rawURL = server.ClientURL(id)
	return &Target{url: rawURL, name: rawURL}, nil
}

// Use sets how to connect. It must come before the first Dial. The error
// names what cannot be used.
func (t *Target) Use(o transport.Options) error {
	tr, err := o.Transport(t.url)
	t.transport, t.header = tr, o.Header
	return err
}

// Dial connects; ctx bounds the handshake only. The error is one sentence
// that says what to do. In raw mode the stream is the plain adapter's and
// speaks with any websocket server; otherwise it can also end one direction
// by CloseWrite.
func (t *Target) Dial(ctx context.Context) (net.Conn, error) {
	var conn net.Conn
	var err error
	if t.raw {
		conn, err = wsconn.Dial(ctx, t.url, t.transport, t.header, wsconn.Options{})
	} else {
		conn, err = frame.Dial(ctx, t.url, t.transport, t.header, frame.Options{})
	}
	if err != nil {
		return nil, transport.Explain(t.name, err)
	}
	return conn, nil
}
