package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// proxyOp is the Op of a *net.OpError about a proxy, as net/http has it.
const proxyOp = "proxyconnect"

// proxyFor returns the proxy that the environment names for a ws or wss URL,
// or nil.
func proxyFor(rawURL string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, nil // the dial names what is wrong with the URL
	}
	// http.ProxyFromEnvironment keeps the first answer of the process, and both
	// leave a malformed proxy out without a word: httpproxy is asked only
	// whether one is to be used.
	config := httpproxy.FromEnvironment()
	target, variable, value := &url.URL{Scheme: "http", Host: u.Host}, "HTTP_PROXY", &config.HTTPProxy
	if u.Scheme == "wss" || u.Scheme == "https" {
		target.Scheme, variable, value = "https", "HTTPS_PROXY", &config.HTTPSProxy
	}
	text := *value
	if text == "" {
		return nil, nil
	}
	*value = "http://proxy.invalid"
	wanted, err := config.ProxyFunc()(target)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", variable, err)
	}
	if wanted == nil {
		return nil, nil
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	proxy, err := url.Parse(text)
	if err != nil || proxy.Host == "" {
		// The parser's error would quote the value, and that a password.
		return nil, fmt.Errorf("cannot use %s: it must be a URL such as http://proxy:3128", variable)
	}
	switch proxy.Scheme {
	case "http", "https", "socks5", "socks5h":
		return proxy, nil
	}
	return nil, fmt.Errorf("cannot use %s: its scheme is %q: it must be http, https or socks5", variable, proxy.Scheme)
}

// tunnel dials through an HTTP proxy by CONNECT (RFC 9110, section 9.3.6).
type tunnel struct {
	proxy *url.URL
	dial  dialFunc
	tls   *tls.Config
}

// dialFunc is a DialContext.
type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// DialContext has the signature that http.Transport wants. The whole exchange
// with the proxy is bounded by HandshakeTimeout. Errors are *net.OpError.
func (t *tunnel) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	conn, err := t.reach(ctx, network, addr)
	if err != nil {
		return nil, &net.OpError{Op: proxyOp, Net: network, Err: err}
	}
	return conn, nil
}

func (t *tunnel) reach(ctx context.Context, network, addr string) (net.Conn, error) {
	port := t.proxy.Port()
	if port == "" {
		port = "80"
		if t.proxy.Scheme == "https" {
			port = "443"
		}
	}
	conn, err := t.dial(ctx, network, net.JoinHostPort(t.proxy.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("cannot reach the proxy: %w", err)
	}
	if t.proxy.Scheme == "https" {
		config := t.tls.Clone()
		config.ServerName = t.proxy.Hostname()
		conn = tls.Client(conn, config)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = t.connect(conn, addr)
	if !stop() {
		err = fmt.Errorf("the proxy %s did not answer in time: %w", t.proxy.Host, ctx.Err())
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// connect asks the proxy for a tunnel to addr.
func (t *tunnel) connect(conn net.Conn, addr string) error {
	req := &http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Opaque: addr},
		Host:   addr,
		Header: http.Header{},
	}
	if user := t.proxy.User; user != nil {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		req.Header.Set("Proxy-Authorization", "Basic "+credentials)
	}
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("cannot ask the proxy %s for a tunnel: %w", t.proxy.Host, err)
	}
	// The peer behind the tunnel speaks only after our handshake, so the
	// reader holds nothing of it when the answer is complete.
	br := bufio.NewReader(&limited{conn: conn, left: maxProxyAnswer})
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return fmt.Errorf("cannot read the answer of the proxy %s: %w", t.proxy.Host, err)
	}
	switch {
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("the proxy %s refused a tunnel to %s: it answered %s", t.proxy.Host, addr, Printable(resp.Status))
	case br.Buffered() > 0:
		return fmt.Errorf("the proxy %s spoke before the tunnel was used", t.proxy.Host)
	}
	return nil
}

// maxProxyAnswer is the longest accepted answer of a proxy, in bytes.
const maxProxyAnswer = 32 << 10

var errTooLong = errors.New("it is longer than 32 KiB")

// limited fails a read past the limit, so that an endless answer ends.
type limited struct {
	conn net.Conn
	left int
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooLong
	}
	n, err := l.conn.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}
