// Package engine speaks the HTTP API of container engines: Docker, and podman's
// service of the same shape. It knows requests, streams and errors, decides what
// is worth another try, and counts. It knows nothing of SSH, nor what the
// containers are for.
//
// It is not the client of the Docker project: that one loses the engine's words
// when it refuses to attach, makes an unknown exit code 0, and brings a tracing
// framework. The types of requests are the project's (github.com/moby/moby/api).
package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Versions of the API, of which the highest that both sides know is used.
const (
	// MinVersion is the oldest that is spoken, that of Docker 19.03.
	MinVersion = "1.40"
	// MaxVersion is the newest that is needed, the oldest of Docker 29.
	MaxVersion = "1.44"
	// ConsoleSizeVersion is the first to take the size of an exec's terminal
	// before it starts.
	ConsoleSizeVersion = "1.42"
)

// DefaultHost is where an engine listens unless somebody says otherwise.
const DefaultHost = "unix:///var/run/docker.sock"

// Options says how to reach an engine.
type Options struct {
	// Host is unix://PATH, tcp://HOST:PORT, http:// or https://; "" is
	// DefaultHost.
	Host string
	// TLS secures a tcp or https host; nil is no TLS for tcp, and the
	// system's trust for https.
	TLS *tls.Config
	// Timeout bounds a request that is answered at once; 0 is 15 seconds.
	Timeout time.Duration
	// Request and Failure are called for each request and for each one that
	// failed; nil is nobody. They may be called concurrently.
	Request, Failure func()
}

// Client speaks with one engine. It may be used concurrently.
type Client struct {
	opts   Options
	scheme string
	host   string // of URLs and the Host header
	dial   func(context.Context) (net.Conn, error)
	http   *http.Client
	// reached says that the engine has answered before, so that a socket that
	// is gone now may come back.
	reached atomic.Bool
	closed  atomic.Bool

	mu      sync.Mutex
	version string // "" until negotiated
}

// New returns a client; the engine is not asked anything yet.
func New(opts Options) (*Client, error) {
	if opts.Host == "" {
		opts.Host = DefaultHost
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 15 * time.Second
	}
	u, err := url.Parse(opts.Host)
	if err != nil {
		return nil, fmt.Errorf("read the engine's address %q: %w", opts.Host, err)
	}
	c := &Client{opts: opts, scheme: "http", host: "engine"}
	var dialer net.Dialer
	switch u.Scheme {
	case "unix":
		path := u.Host + u.Path
		if path == "" {
			return nil, fmt.Errorf("the engine's address %q has no path: write unix:///var/run/docker.sock", opts.Host)
		}
		c.dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
	case "tcp", "http", "https":
		if u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return nil, fmt.Errorf("the engine's address %q is not of the form %s://HOST:PORT", opts.Host, u.Scheme)
		}
		config := opts.TLS
		if config == nil && u.Scheme == "https" {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		c.host = u.Host
		address := u.Host
		if u.Port() == "" {
			address = net.JoinHostPort(u.Hostname(), "2375")
			if config != nil {
				address = net.JoinHostPort(u.Hostname(), "2376")
			}
		}
		c.dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", address) }
		if config != nil {
			c.scheme = "https"
			secure := &tls.Dialer{Config: config}
			c.dial = func(ctx context.Context) (net.Conn, error) { return secure.DialContext(ctx, "tcp", address) }
		}
	default:
		return nil, fmt.Errorf("the engine's address %q is neither unix:// nor tcp://: say where its API listens", opts.Host)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) }
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext: dial, DialTLSContext: dial,
			DisableCompression: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
		// An engine does not redirect.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close gives connections back that are idle, or will be. Streams go on, and so may
// questions that are under way, or come late.
func (c *Client) Close() {
	c.closed.Store(true)
	c.http.CloseIdleConnections()
}

// negotiate returns the version of the API to use, asking the engine once.
func (c *Client) negotiate(ctx context.Context) (string, error) {
	c.mu.Lock()
	version := c.version
	c.mu.Unlock()
	if version != "" {
		return version, nil
	}
	resp, err := c.send(ctx, http.MethodGet, "/_ping", nil, nil, nil)
	if err != nil {
		return "", err
	}
	discard(resp)
	version = resp.Header.Get("Api-Version")
	switch {
	case version == "":
		version = MinVersion
	case !atLeast(version, MinVersion):
		return "", &Error{Status: http.StatusBadRequest, Message: fmt.Sprintf("the engine's API %.16s is older than %s: it takes Docker 19.03 or newer, or podman 4", version, MinVersion)}
	case atLeast(version, MaxVersion):
		version = MaxVersion
	}
	c.mu.Lock()
	c.version = version
	c.mu.Unlock()
	return version, nil
}

// AtLeast reports whether the engine speaks that version of the API.
func (c *Client) AtLeast(ctx context.Context, version string) bool {
	have, err := c.negotiate(ctx)
	return err == nil && atLeast(have, version)
}

// atLeast compares versions such as 1.41.
func atLeast(have, want string) bool {
	major, minor := parseVersion(have)
	wantMajor, wantMinor := parseVersion(want)
	return major > wantMajor || major == wantMajor && minor >= wantMinor
}

func parseVersion(v string) (major, minor int) {
	a, b, _ := strings.Cut(v, ".")
	major, _ = strconv.Atoi(a)
	minor, _ = strconv.Atoi(b)
	return major, minor
}

// send makes one request and returns an answer below 300; another is an *Error.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, header http.Header, body io.Reader) (*http.Response, error) {
	req, err := c.request(ctx, method, path, query, header, body)
	if err != nil {
		return nil, err
	}
	c.count(c.opts.Request)
	resp, err := c.http.Do(req)
	if c.closed.Load() { // each question makes the transport keep connections again
		c.http.CloseIdleConnections()
	}
	if err != nil {
		c.count(c.opts.Failure)
		// Without the URL, which says nothing to anybody.
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, err
	}
	c.reached.Store(true)
	if resp.StatusCode >= 300 {
		defer discard(resp)
		if resp.StatusCode != http.StatusNotModified && method != http.MethodHead {
			c.count(c.opts.Failure)
		}
		return nil, readError(resp)
	}
	return resp, nil
}

func (c *Client) request(ctx context.Context, method, path string, query url.Values, header http.Header, body io.Reader) (*http.Request, error) {
	u := url.URL{Scheme: c.scheme, Host: c.host, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", "converge")
	return req, nil
}

func (c *Client) count(f func()) {
	if f != nil {
		f()
	}
}

// discard reads what little may be left, so that the connection serves again.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}
