// Package credential gets the OIDC token with which an agent shows its server
// what job it is: from a file, a variable, or the CI system itself. It knows
// nothing of what is in a token, nor of how it is sent.
package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"example.com/converge/pkg/cmdline"
)

const (
	// requestWait bounds one request for a token.
	requestWait = 15 * time.Second
	// maxAnswer is the longest answer to it, in bytes.
	maxAnswer = 64 << 10
	// maxToken is the longest token that servers look at, in bytes.
	maxToken = 12 << 10
)

// Variables of a GitHub Actions job that has the permission id-token: write.
const (
	requestURL   = "ACTIONS_ID_TOKEN_REQUEST_URL"
	requestToken = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
)

// Source returns a token; each call gets a fresh one where there is one to be
// had. Its errors hold nothing of it. Calls may be concurrent.
type Source func(ctx context.Context) (string, error)

// Given is a token that the user gave, itself or as @FILE, and what it was at
// first. A file is read at each call, so that it may be renewed; where it cannot
// be read again, as a pipe, the first token holds on.
func Given(value, first string) Source {
	return func(context.Context) (string, error) {
		token, err := cmdline.ReadSecret("--oidc-token", value)
		if err != nil {
			token = first
		}
		return token, check(token)
	}
}

// GitHub asks GitHub Actions, or what is made like it, for tokens for an
// audience. The error says what the job lacks.
func GitHub(audience string, getenv func(string) string) (Source, error) {
	address, secret := getenv(requestURL), getenv(requestToken)
	if address == "" || secret == "" {
		return nil, fmt.Errorf("--oidc-audience needs a job of GitHub Actions with 'permissions: id-token: write', which sets %s: give --oidc-token otherwise", requestURL)
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && net.ParseIP(u.Hostname()).IsLoopback()) {
		return nil, fmt.Errorf("%s is no https URL", requestURL)
	}
	query := u.Query()
	query.Set("audience", audience)
	u.RawQuery = query.Encode()
	client := &http.Client{
		Timeout: requestWait,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 32 << 10,
		},
		// The request's own token is for nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return "", fmt.Errorf("cannot ask the CI system for a token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Header.Set("Accept", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			var address *url.Error
			if errors.As(err, &address) { // its text has the URL, which is nobody's business
				err = address.Err
			}
			return "", fmt.Errorf("cannot ask the CI system for a token: %w", err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return "", fmt.Errorf("cannot read the CI system's token: %w", err)
		}
		if resp.StatusCode != http.StatusOK {
			return "", fmt.Errorf("the CI system gives no token: it answered %s: check the job's permission id-token: write", resp.Status)
		}
		var answer struct{ Value string }
		if err := json.Unmarshal(text, &answer); err != nil {
			return "", errors.New("the CI system's answer holds no token")
		}
		return answer.Value, check(answer.Value)
	}, nil
}

// check refuses what cannot be a token, before it is sent to anybody.
func check(token string) error {
	switch {
	case strings.Count(token, ".") != 2 || strings.ContainsAny(token, " \t"):
		return errors.New("the OIDC token is none: it must be three parts of text between dots")
	case len(token) > maxToken:
		return fmt.Errorf("the OIDC token is longer than %d KiB: no server takes it", maxToken>>10)
	}
	return nil
}
