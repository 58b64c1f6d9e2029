package repos

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/pkg/transport"
)

// consulTimeout bounds one question.
const consulTimeout = 10 * time.Second

// Prefix stands before the base64 of a clone URL in Consul's keys.
const Prefix = "albatros/"

// Key is Consul's key of a clone URL: standard base64 with padding.
func Key(repo string) string { return Prefix + base64.StdEncoding.EncodeToString([]byte(repo)) }

// Consul is a Source that asks Consul each time, so that a change holds at once.
// Close it.
type Consul struct {
	base   *url.URL
	token  string
	client *http.Client
}

// NewConsul makes one. The error names the file that cannot be used.
func NewConsul(s settings.Consul) (*Consul, error) {
	base, err := url.Parse(s.Address)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("read the address of Consul: it must be an http or https URL")
	}
	config, err := TLS("Consul", s.CACert, s.ClientCert, s.ClientKey)
	if err != nil {
		return nil, err
	}
	return &Consul{base: base, token: s.Token, client: &http.Client{
		Timeout: consulTimeout,
		Transport: &http.Transport{
			TLSClientConfig: config, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: consulTimeout,
			ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// TLS reads the files of a client's TLS, any of which may be "".
func TLS(who, ca, cert, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if ca != "" {
		if config.RootCAs, err = transport.Roots(ca); err != nil {
			return nil, fmt.Errorf("read the CA certificates for %s: %w", who, err)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate for %s: %w", who, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Name implements Source.
func (c *Consul) Name() string { return "Consul at " + c.base.Host }

// Close closes the connections that are not in use.
func (c *Consul) Close() { c.client.CloseIdleConnections() }

// Get implements Source: GET /v1/kv/KEY, whose answer is a list of one object
// with the value in base64
// (https://developer.hashicorp.com/consul/api-docs/kv#read-key).
func (c *Consul) Get(ctx context.Context, repo string) (*Repo, error) {
	key := Key(repo)
	code, body, err := c.get(ctx, "/v1/kv/"+key)
	switch {
	case err != nil:
		return nil, err
	case code == http.StatusNotFound:
		return nil, ErrUnknown
	case code != http.StatusOK:
		return nil, fmt.Errorf("%w: Consul at %s answered %d %s", ErrAway, c.base.Host, code, http.StatusText(code))
	}
	var entries []struct {
		Value []byte // base64 in JSON
	}
	if err := json.Unmarshal(body, &entries); err != nil || len(entries) != 1 {
		return nil, fmt.Errorf("%w: what answers at %s is not Consul", ErrAway, c.base.Host)
	}
	return parseJSON(key, repo, entries[0].Value)
}

// Check implements Source by asking for the leader.
func (c *Consul) Check(ctx context.Context) error {
	code, body, err := c.get(ctx, "/v1/status/leader")
	switch {
	case err != nil:
		return err
	case code != http.StatusOK:
		return fmt.Errorf("%w: Consul at %s answered %d %s", ErrAway, c.base.Host, code, http.StatusText(code))
	case strings.TrimSpace(string(body)) == `""`:
		return fmt.Errorf("%w: Consul at %s has no leader", ErrAway, c.base.Host)
	}
	return nil
}

func (c *Consul) get(ctx context.Context, path string) (int, []byte, error) {
	u := *c.base
	u.Path = strings.TrimRight(u.Path, "/") + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return 0, nil, fmt.Errorf("ask Consul: %w", err)
	}
	if c.token != "" {
		req.Header.Set("X-Consul-Token", c.token)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrAway, transport.Explain(c.base.Host, unwrapURL(err)))
	}
	defer resp.Body.Close()
	// The value is in base64, with some words around it.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxValue*2))
	if err != nil {
		return 0, nil, fmt.Errorf("%w: Consul at %s did not finish its answer", ErrAway, c.base.Host)
	}
	return resp.StatusCode, body, nil
}
