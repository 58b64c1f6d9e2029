package link

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"testing"

	"example.com/converge/pkg/rendezvous"
)

// TestCredential goes with each registration, afresh, together with the name of
// the run key, and with nothing else. When there is none any more the key must
// do.
func TestCredential(t *testing.T) {
	tokens := []string{"first", "second"}
	b := start(t, newServer(t), func(cfg *Config) {
		cfg.Header = http.Header{"X-Other": {"x"}}
		cfg.Credential = func(context.Context) (string, error) {
			if len(tokens) == 0 {
				return "", errors.New("the job is over")
			}
			token := tokens[0]
			tokens = tokens[1:]
			return token, nil
		}
	}, nil)
	for _, want := range []string{"Bearer first", "Bearer second", ""} {
		c := b.registered()
		if got := c.Header.Get("Authorization"); got != want || c.Header.Get("X-Other") != "x" {
			t.Errorf("it came with %q, want %q", got, want)
		}
		if got := c.Header.Get(rendezvous.KeyHeader); got != base64.RawURLEncoding.EncodeToString(c.Hello.Key) {
			t.Errorf("it names the key %q", got)
		}
		data, _ := b.visit(c)
		if data.Header.Get("Authorization") != "" || data.Header.Get(rendezvous.KeyHeader) != "" {
			t.Errorf("a data connection came with %v", data.Header)
		}
		exchange(t, data.Conn)
		check(t, c.Close())
	}
	b.logged("no fresh OIDC token", 1)
}

// TestNoCredential keeps an agent from registering that cannot show what it is.
func TestNoCredential(t *testing.T) {
	b := start(t, newServer(t), func(cfg *Config) {
		cfg.Credential = func(context.Context) (string, error) { return "", errors.New("no permission") }
	}, nil)
	b.fails("cannot show the server what job this is", "no permission")
}

// TestUnwelcome: whom the server lets in no more goes, whoever is connected
// stays until then.
func TestUnwelcome(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		server := newServer(t)
		b := start(t, server, hour, nil)
		c := b.registered()
		server.Answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "the token was revoked", status) })
		check(t, c.Say(rendezvous.Message{Refused: &rendezvous.Refused{Code: rendezvous.RefusedAccess, Text: "revoked"}}))
		b.fails("the token was revoked")
		b.logged("the place at the server is lost", 1)
	}
}

// TestRefusedAccess ends an agent at once, however patient it is.
func TestRefusedAccess(t *testing.T) {
	b := start(t, newServer(t), hour, nil)
	check(t, b.control().Refuse(rendezvous.RefusedAccess, "the OIDC token has been used by another agent"))
	b.fails("has been used by another agent")
}
