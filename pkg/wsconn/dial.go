package wsconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"

	"nhooyr.io/websocket"

	"example.com/converge/pkg/transport"
)

//lint:file-ignore SA1019 this package exists to confine nhooyr.io/websocket

// Dial opens a websocket to a ws or wss URL. ctx bounds the handshake only:
// the connection outlives it. tr makes the connection (transport.Options gives
// one; nil means that of zero Options), header is sent with the handshake.
//
// Where the server answers anything but 101 the error wraps the
// *transport.RefusedError of its answer; redirects are not followed, for they
// would take the headers along. No error holds the URL, which may hold a
// secret. No compression is offered.
func Dial(ctx context.Context, rawURL string, tr *http.Transport, header http.Header, opts Options) (*Conn, error) {
	if tr == nil {
		var err error
		if tr, err = (transport.Options{}).Transport(rawURL); err != nil {
			return nil, fmt.Errorf("opening a websocket: %w", err)
		}
	}
	up := &upgrade{transport: tr}
	ws, resp, err := websocket.Dial(ctx, rawURL, &websocket.DialOptions{
		HTTPClient: &http.Client{
			Transport:     up,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		HTTPHeader:      header,
		Subprotocols:    opts.Subprotocols,
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		// A refusal leaves a connection that could be used again, and is not.
		tr.CloseIdleConnections()
		return nil, fmt.Errorf("opening a websocket: %w", dialError(resp, err))
	}
	c := newConn(ws, up.link, opts)
	return c, nil
}

// dialError makes Dial's error from what nhooyr returned.
func dialError(resp *http.Response, err error) error {
	if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
		return transport.Refused(resp)
	}
	var withURL *url.Error
	if errors.As(err, &withURL) {
		return withURL.Err
	}
	return err
}

// upgrade is a round trip that puts a link between nhooyr and the connection.
type upgrade struct {
	transport *http.Transport
	link      *link
}

// RoundTrip makes the handshake of one Dial.
func (u *upgrade) RoundTrip(req *http.Request) (*http.Response, error) {
	var conn net.Conn
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { conn = info.Conn },
	})
	resp, err := u.transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	body, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode == http.StatusSwitchingProtocols && ok {
		u.link = newLink(body, conn)
		resp.Body = u.link
	}
	return resp, nil
}
