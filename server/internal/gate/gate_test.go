package gate

import (
	"crypto/ed25519"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/oidctest"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/pkg/wsconn"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/fakeagent"
	"example.com/converge/server/internal/limits"
)

// wantGone wants a refusal for lack of access on a control connection.
func wantGone(t *testing.T, conn *wsconn.Conn, sentence string) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	m, err := rendezvous.Receive(conn)
	if err != nil || m.Refused == nil || m.Refused.Code != rendezvous.RefusedAccess || !strings.Contains(m.Refused.Text, sentence) {
		t.Errorf("got %+v, %v, want a refusal with %q", m, err, sentence)
	}
}

// fakeagentAlive asks for leave to park, which a registered agent gets.
func fakeagentAlive(conn *wsconn.Conn) error {
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if err := rendezvous.Send(conn, rendezvous.Message{Park: &rendezvous.Park{}}); err != nil {
		return err
	}
	m, err := rendezvous.Receive(conn)
	if err == nil && m.Parking == nil {
		err = errors.New("no leave to park")
	}
	return err
}

// made makes a static token with its line.
func made(t *testing.T, name, role string, ids ...string) (token, line string) {
	t.Helper()
	roles, err := access.ParseRoles(role)
	if err != nil {
		t.Fatal(err)
	}
	token, line, err = access.MakeToken(name, roles, ids)
	if err != nil {
		t.Fatal(err)
	}
	return token, line + "\n"
}

// TestOpen: without any rule everybody may do everything.
func TestOpen(t *testing.T) {
	h := open(t, "", "", limits.Default)
	h.in("job", visitor{})
	h.in("other", visitor{token: "of a proxy"})
	if e := h.trail.next("agent.registered"); e.Credential != "none" || e.Remote != "127.0.0.1" {
		t.Errorf("the audit log says %+v", e)
	}
	wantRefused(t, h.client("nobody", visitor{}), http.StatusNotFound, "no agent is registered")
}

func TestStaticTokens(t *testing.T) {
	ci, ciLine := made(t, "ci", "agent", "acme/**")
	alice, aliceLine := made(t, "alice", "client")
	both, bothLine := made(t, "probe", "agent,client")
	unknown, _ := made(t, "unknown", "agent")
	h := open(t, "# who\n\n"+ciLine+aliceLine+bothLine, "", limits.Config{})
	h.in("acme/1", visitor{token: ci})
	h.in("other", visitor{token: both})
	const unauthorized, forbidden = http.StatusUnauthorized, http.StatusForbidden
	for name, test := range map[string]struct {
		agent    bool
		token    string
		status   int
		sentence string
	}{
		"agent without":            {true, "", unauthorized, "without a credential"},
		"client without":           {false, "", unauthorized, "without a credential: give a token with --token @FILE"},
		"unknown":                  {true, unknown, unauthorized, "none of this server's"},
		"a bit off":                {true, ci[:len(ci)-2] + "AA", unauthorized, "none of this server's"},
		"no token at all":          {true, "password", unauthorized, "none of this server's"},
		"agent by a client's":      {true, alice, forbidden, "the token is not for agents"},
		"client by an agent's":     {false, ci, forbidden, "the token is not for clients"},
		"another id":               {true, ci, forbidden, "only for acme/**"},
		"client of no agent":       {false, alice, http.StatusNotFound, "no agent"},
		"OIDC where there is none": {true, "e30.e30.AAAA", unauthorized, "does not accept"},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			if test.agent {
				_, err = h.register("evil", visitor{token: test.token})
			} else {
				err = h.client("evil", visitor{token: test.token})
			}
			wantRefused(t, err, test.status, test.sentence)
		})
	}
	for _, secret := range []string{ci, alice, both, unknown, "password"} {
		if strings.Contains(h.trail.all(), secret) {
			t.Error("the audit log holds a token")
		}
	}
	if e := h.trail.next("agent.registered"); e.Subject != "ci" || e.Credential != "token" {
		t.Errorf("the audit log says %+v", e)
	}
}

// TestChallenge: a 401 says what is wanted (RFC 9110 §11.6.1), a refused
// scheme, too.
func TestChallenge(t *testing.T) {
	_, line := made(t, "ci", "agent")
	h := open(t, line, "", limits.Config{})
	for _, given := range []string{"", "Basic YTpi", "Bearer", "Bearer  ", "bearer x"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+h.rv.Host+"/agent/job", nil)
		if err != nil {
			t.Fatal(err)
		}
		if given != "" {
			req.Header.Set("Authorization", given)
		}
		resp, err := fakeagent.Transport().RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer") || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%q: %s %v", given, resp.Status, resp.Header)
		}
	}
}

// TestTokenRevokes: a line that goes ends an agent's registration and a
// client's session, and nobody else's.
func TestTokenRevokes(t *testing.T) {
	ci, ciLine := made(t, "ci", "agent")
	kept, keptLine := made(t, "kept", "agent,client")
	alice, aliceLine := made(t, "alice", "client")
	h := open(t, ciLine+keptLine+aliceLine, "", limits.Config{})
	gone, stays := h.in("gone", visitor{token: ci}), h.in("stays", visitor{token: kept})

	// A session of each client with the agent that stays.
	session := func(token string) *frame.Conn {
		t.Helper()
		type dialled struct {
			conn *frame.Conn
			err  error
		}
		done := make(chan dialled, 1)
		go func() {
			conn, err := frame.Dial(t.Context(), h.rv.ClientURL("stays"), fakeagent.Transport(), visitor{token: token}.header(), frame.Options{})
			done <- dialled{conn, err}
		}()
		m, err := rendezvous.Receive(stays)
		if err != nil || m.Dial == nil {
			t.Fatalf("got %+v, %v", m, err)
		}
		back, err := frame.Dial(t.Context(), h.rv.DataURL(), fakeagent.Transport(), fakeagent.DataHeader(m.Dial), frame.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = back.Close() })
		got := <-done
		if got.err != nil {
			t.Fatal(got.err)
		}
		t.Cleanup(func() { _ = got.conn.Close() })
		return got.conn
	}
	ended, goes := session(alice), session(kept)

	h.write(h.tokens, keptLine)
	h.guard.Reload()
	wantGone(t, gone, "let this credential in no more")
	var closed *frame.CloseError
	_ = ended.SetReadDeadline(time.Now().Add(patience))
	if _, err := ended.Read(make([]byte, 1)); !errors.As(err, &closed) || closed.Code != frame.ClosePolicy {
		t.Errorf("the session ended with %v, want 1008", err)
	}
	if e := h.trail.next("client.ended"); e.Result != "revoked" || e.Subject != "alice" || e.Client == 0 || e.Seconds == nil || e.ToAgent == nil {
		t.Errorf("the audit log says %+v", e)
	}
	if err := fakeagentAlive(stays); err != nil {
		t.Errorf("an agent whose token is there was ended: %v", err)
	}
	if _, err := goes.Write([]byte("x")); err != nil {
		t.Errorf("a session whose token is there was ended: %v", err)
	}
	_, err := h.register("gone", visitor{token: ci})
	wantRefused(t, err, http.StatusUnauthorized, "may have been revoked")
}

// TestStrangersUseUpNothing: who has no token, or names another's key, does not
// keep out who has one.
func TestStrangersUseUpNothing(t *testing.T) {
	token, line := made(t, "ci", "agent,client")
	issuer := oidctest.New(t)
	h := open(t, line, policyFor(issuer), limits.Config{IDClients: 1, IDConnects: 2, IDRegistrations: 2})
	const evil, good = "192.0.2.66", "192.0.2.1"
	for range 5 {
		_, err := h.register("team/victim", visitor{from: evil})
		wantRefused(t, err, http.StatusUnauthorized, "")
		wantRefused(t, h.client("team/victim", visitor{from: evil}), http.StatusUnauthorized, "")
	}
	h.in("team/victim", visitor{token: token, from: good})
	wantRefused(t, h.client("elsewhere", visitor{token: token, from: good}), http.StatusNotFound, "")

	key := fakeagent.NewKey()
	public, _ := key.Public().(ed25519.PublicKey)
	_ = h.in("acme/widgets/1", visitor{token: issuer.Token(audience, github(nil)), key: key, from: good}).Close()
	for range 5 {
		_, err := h.register("acme/widgets/1", visitor{named: public, from: evil})
		wantRefused(t, err, 0, "is not the one that came with its OIDC token")
	}
	h.in("acme/widgets/1", visitor{key: key, from: good})
	_, err := h.register("acme/widgets/1", visitor{key: key, from: good})
	wantRefused(t, err, http.StatusTooManyRequests, "too many registrations of this id")
}

// TestGuessing: after so many failures an address is told nothing more, other
// addresses are, and what is there goes on.
func TestGuessing(t *testing.T) {
	token, line := made(t, "ci", "agent,client")
	h := open(t, line, "", limits.Config{Failures: 3})
	const evil, same, good = "2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"
	conn := h.in("job", visitor{token: token, from: evil})
	// A wrong token, a wrong id, and a dial-back that nobody waits for.
	_, err := h.register("x", visitor{token: "guess", from: evil})
	wantRefused(t, err, http.StatusUnauthorized, "")
	wantRefused(t, h.client("guess", visitor{token: token, from: evil}), http.StatusNotFound, "")
	header := fakeagent.DataHeader(&rendezvous.Dial{Client: 1, Token: "guess"})
	header.Set("X-Test", same)
	_, err = frame.Dial(t.Context(), h.rv.DataURL(), fakeagent.Transport(), header, frame.Options{})
	wantRefused(t, err, http.StatusForbidden, "")
	for range 2 {
		wantRefused(t, h.client("job", visitor{token: token, from: same}), http.StatusTooManyRequests, "too many failed attempts from your address: try again in ")
		_, err = h.register("y", visitor{token: token, from: evil})
		wantRefused(t, err, http.StatusTooManyRequests, "too many failed attempts")
	}
	var refused *transport.RefusedError
	if !errors.As(err, &refused) || !refused.Temporary() {
		t.Errorf("%v is no reason to try again", err)
	}
	h.in("z", visitor{token: token, from: good})
	for h.trail.next("agent.registered").ID != "z" { // what came before is written by then
	}
	if n := strings.Count(h.trail.all(), `"limited"`); n != 1 {
		t.Errorf("%d lines of a flood", n)
	}
	if err := fakeagentAlive(conn); err != nil {
		t.Error(err)
	}
}

// TestCounts: what an address has open is counted until it ends.
func TestCounts(t *testing.T) {
	h := open(t, "", "", limits.Config{Connections: 2, Handshakes: 1, Registrations: 100})
	const from = "192.0.2.1"
	a := h.in("a", visitor{from: from})
	h.in("b", visitor{from: from})
	_, err := h.register("c", visitor{from: from})
	wantRefused(t, err, http.StatusTooManyRequests, "too many connections from your address")
	h.in("c", visitor{from: "192.0.2.2"})
	_ = a.Close()
	h.trail.next("agent.gone")
	h.in("d", visitor{from: from})
	// One that does not register takes the only place of those.
	silent := visitor{from: "192.0.2.3"}
	conn, err := wsconn.Dial(t.Context(), h.rv.AgentURL("e"), fakeagent.Transport(), silent.header(), wsconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.register("f", silent)
	wantRefused(t, err, http.StatusTooManyRequests, "too many unfinished connections")
	_ = conn.Close()
	h.trail.next("agent.refused")
	h.in("f", silent)
}
