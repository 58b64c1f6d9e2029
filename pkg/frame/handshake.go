package frame

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"example.com/converge/pkg/transport"
)

// acceptGUID is fixed by RFC 6455, section 1.3.
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// Dial opens a websocket to a ws or wss URL over tr and returns the client's
// end. ctx bounds the handshake only, which has a minute at most; header is
// added to it and must not name its own fields. The given subprotocols are
// offered, of which the server may choose one (Conn.Protocol), and no extension.
// An answer other than 101 is a *transport.RefusedError. tr should speak HTTP/1.1
// only, as one made by transport.Options does.
func Dial(ctx context.Context, rawURL string, tr http.RoundTripper, header http.Header, opts Options, protocols ...string) (*Conn, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("cannot parse the URL: %w", err)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	default:
		return nil, fmt.Errorf("the URL's scheme is %q: it must be ws or wss", u.Scheme)
	}
	u.Fragment = ""
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	// net/http gives the 101 body no deadlines; the connection it came on has
	// them, and is ours once the transport has handed over the body.
	var nc net.Conn
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { nc = info.Conn },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("cannot make the handshake: %w", err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
		req.Header.Del("Host")
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", key)
	if len(protocols) > 0 {
		req.Header.Set("Sec-WebSocket-Protocol", strings.Join(protocols, ", "))
	}

	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, transport.Refused(resp)
	}
	body, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || nc == nil {
		_ = resp.Body.Close()
		return nil, errors.New("the HTTP transport does not hand over its connection")
	}
	protocol, err := checkAccepted(resp.Header, key, protocols)
	if err != nil {
		_ = body.Close()
		return nil, err
	}
	conn := Client(nc, body, opts)
	conn.protocol, conn.answer = protocol, resp.Header
	return conn, nil
}

// checkAccepted verifies the server's handshake (RFC 6455, section 4.1) and
// returns the subprotocol that it chose, "" for none.
func checkAccepted(h http.Header, key string, offered []string) (string, error) {
	sum := sha1.Sum([]byte(key + acceptGUID))
	want := base64.StdEncoding.EncodeToString(sum[:])
	switch {
	case !strings.EqualFold(h.Get("Upgrade"), "websocket"),
		!hasToken(h["Connection"], "upgrade"):
		return "", errors.New("the server switched to something other than websocket: check the URL")
	case subtle.ConstantTimeCompare([]byte(h.Get("Sec-WebSocket-Accept")), []byte(want)) != 1:
		return "", errors.New("the server's Sec-WebSocket-Accept is wrong: something in between answered for it")
	case h.Get("Sec-WebSocket-Extensions") != "":
		return "", errors.New("the server chose an extension that was not offered")
	}
	chosen := h["Sec-Websocket-Protocol"]
	if len(chosen) == 0 {
		return "", nil
	}
	if len(chosen) > 1 || !slices.Contains(offered, chosen[0]) {
		return "", errors.New("the server chose a subprotocol that was not offered")
	}
	return chosen[0], nil
}

// hasToken looks for a token in comma-separated header values.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// dialTimeout bounds a whole handshake of Dial, a refusal's body included.
const dialTimeout = time.Minute

// acceptTimeout bounds the write of the server's handshake.
const acceptTimeout = 10 * time.Second

// IsHandshake reports whether a request asks for a websocket at all, so that
// anything else can be answered with words.
func IsHandshake(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && hasToken(r.Header["Connection"], "upgrade")
}

// Offered reports whether a handshake offers a subprotocol (RFC 6455, section
// 11.3.4), which are compared case-sensitively.
func Offered(r *http.Request, protocol string) bool {
	for _, v := range r.Header["Sec-Websocket-Protocol"] {
		for part := range strings.SplitSeq(v, ",") {
			if strings.TrimSpace(part) == protocol {
				return true
			}
		}
	}
	return false
}

// Accept answers a handshake and takes the connection over from net/http, with
// whatever came in the same segments. protocol, if not "", is the subprotocol
// that the client is told; it must be one of Offered. Extensions are not
// negotiated. On an error the request has been answered. Whether the Origin
// may connect is the caller's to check, before.
func Accept(w http.ResponseWriter, r *http.Request, protocol string) (Peer, error) {
	return AcceptWith(w, r, protocol, nil)
}

// AcceptWith is Accept with more fields in the answer's header, which must not
// be the handshake's own. The header of w is no part of that answer.
func AcceptWith(w http.ResponseWriter, r *http.Request, protocol string, header http.Header) (Peer, error) {
	upgrader := ws.HTTPUpgrader{Timeout: acceptTimeout, Header: header}
	if protocol != "" {
		upgrader.Protocol = func(offered string) bool { return offered == protocol }
	}
	conn, rw, _, err := upgrader.Upgrade(r, w)
	if err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		return Peer{}, fmt.Errorf("cannot accept the websocket: %w", err)
	}
	early := make([]byte, rw.Reader.Buffered())
	_, _ = io.ReadFull(rw.Reader, early) // from memory: cannot fail
	return Peer{Conn: conn, Early: early}, nil
}
