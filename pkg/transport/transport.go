// Package transport is how a Converge program reaches a server: the TLS
// trust, the proxy and the extra headers of an outgoing websocket handshake,
// and the sentence for a handshake that the server refused. It knows HTTP and
// nothing of websocket frames, of ids or of SSH.
package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode"

	"example.com/converge/pkg/rawio"
)

// Limits of an outgoing handshake.
const (
	// DialTimeout bounds name lookup and the TCP connect, per address.
	DialTimeout = 15 * time.Second
	// HandshakeTimeout bounds TLS, and then the wait for the server's answer.
	HandshakeTimeout = 20 * time.Second
	// maxRefusal is how much of a refusal's body is read, in bytes.
	maxRefusal = 1 << 10
)

// Options say how to connect. The zero value trusts the system's roots, takes
// the proxy from HTTP_PROXY, HTTPS_PROXY and NO_PROXY (also in small letters),
// and has no header.
type Options struct {
	// CAFile is a PEM file with the roots to trust in place of the system's.
	CAFile string
	// Insecure turns the verification of the server's certificate off.
	Insecure bool
	// Header is for every handshake. A Transport does not add it: whoever makes
	// the request does.
	Header http.Header
}

// Transport makes an http.Transport for handshakes with the server of a ws or
// wss URL. It speaks HTTP/1.1 only, as an RFC 6455 handshake needs. The
// environment is read once, here. The error names the file or the variable
// that could not be used.
//
// An HTTP proxy is asked for a tunnel by CONNECT for ws URLs too, as RFC 6455,
// section 4.1 wants it; net/http by itself would ask the proxy to fetch such a
// URL, and most proxies drop the Upgrade.
func (o Options) Transport(rawURL string) (*http.Transport, error) {
	tlsConfig := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Verification is off only where the user asked for it by name.
		InsecureSkipVerify: o.Insecure,
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the CA file: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the CA file %s holds no PEM certificate", o.CAFile)
		}
	}
	proxy, err := proxyFor(rawURL)
	if err != nil {
		return nil, err
	}
	dial := dialer(net.Dialer{Timeout: DialTimeout})
	tr := &http.Transport{
		DialContext:           dial,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   HandshakeTimeout,
		ResponseHeaderTimeout: HandshakeTimeout,
		// A refused handshake leaves a connection that nobody will use.
		DisableKeepAlives: true,
		// A non-nil, empty map keeps HTTP/2 out: it has no Upgrade.
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxResponseHeaderBytes: 32 << 10,
	}
	switch {
	case proxy == nil:
	case proxy.Scheme == "http" || proxy.Scheme == "https":
		tunnel := &tunnel{proxy: proxy, dial: dial, tls: tlsConfig}
		tr.DialContext = tunnel.DialContext
	default: // SOCKS
		tr.Proxy = http.ProxyURL(proxy)
	}
	return tr, nil
}

// dialer returns the dialler's DialContext, of connections that move bytes with
// as few wake-ups as they can.
func dialer(d net.Dialer) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return rawio.Conn(conn), nil
	}
}

// RefusedError is a server's answer to a handshake other than 101.
type RefusedError struct {
	// Status is the HTTP status code.
	Status int
	// Text is the first line of the body, made printable; it may be empty.
	Text string
}

// Error gives the server's own sentence where it sent one.
func (e *RefusedError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("the server answered %d %s instead of opening a websocket: check the URL",
			e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("%s (HTTP %d)", e.Text, e.Status)
}

// Temporary reports whether the same handshake may be answered otherwise a
// little later.
func (e *RefusedError) Temporary() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// Refused makes the error for an answer that is not 101. It reads at most
// 1 KiB of the body and keeps its first line if that is plain text; pages of a
// proxy in between are not worth quoting.
func Refused(resp *http.Response) *RefusedError {
	refused := &RefusedError{Status: resp.StatusCode}
	if resp.Body == nil || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		return refused
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	refused.Text = Printable(line)
	return refused
}

// Printable replaces what a terminal could take for a command, and in the log
// of a job the CI system: Azure Pipelines and GitHub obey ##vso[…] and ##[…]
// wherever in a line they stand. Text that a peer chose is shown to people only
// through it.
func Printable(s string) string {
	var before rune
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) || r == '#' && before == '#' {
			r = '?'
		}
		before = r
		return r
	}, s)
}

// Explain turns a failed connection attempt into one sentence that says what
// to do next. target is the URL as the user gave it, without anything secret.
func Explain(target string, err error) error {
	var (
		refused  *RefusedError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		dns      *net.DNSError
		op       *net.OpError
	)
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &op) && op.Op == proxyOp:
		return fmt.Errorf("cannot reach %s through a proxy: check HTTP_PROXY, HTTPS_PROXY and NO_PROXY: %w", target, err)
	case errors.As(err, &unknown):
		return fmt.Errorf("the TLS certificate of %s is not signed by a trusted authority: name its CA with --ca FILE: %w", target, err)
	case errors.As(err, &hostname):
		return fmt.Errorf("the TLS certificate of %s is for another name: check the host in the URL: %w", target, err)
	case errors.As(err, &invalid):
		return fmt.Errorf("the TLS certificate of %s is not valid: %w", target, err)
	case noTLS(err):
		return fmt.Errorf("%s does not speak TLS: try ws:// in place of wss://: %w", target, err)
	case errors.As(err, &dns):
		return fmt.Errorf("cannot find the host of %s: check its name: %w", target, err)
	}
	return fmt.Errorf("cannot reach %s: check that the server runs and the URL is right: %w", target, err)
}

// Permanent reports whether trying the same connection again is useless
// without somebody changing something: untrusted TLS, a refused path or id.
func Permanent(err error) bool {
	var (
		refused  *RefusedError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
	)
	if errors.As(err, &refused) {
		return !refused.Temporary()
	}
	return errors.As(err, &unknown) || errors.As(err, &hostname) ||
		errors.As(err, &invalid) || noTLS(err)
}

// noTLS reports whether the server answered a TLS handshake with something
// else; net/http has an error of its own for an answer in HTTP.
func noTLS(err error) bool {
	var record tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record)
}
