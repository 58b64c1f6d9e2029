package gate

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/oidctest"
	"example.com/converge/server/internal/fakeagent"
	"example.com/converge/server/internal/limits"
)

// TestForgedTokens shows each of many forged, stale, stolen and misused tokens
// to a real server, and wants its own sentence for each.
func TestForgedTokens(t *testing.T) {
	issuer, other := oidctest.New(t), oidctest.New(t)
	h := open(t, "", policyFor(issuer), limits.Config{})
	key := issuer.Key()
	now := time.Now()
	std := func(extra oidctest.Claims) oidctest.Claims { return issuer.Standard(audience, github(extra)) }
	sign := func(extra oidctest.Claims) string { return oidctest.Sign(t, key, std(extra), nil) }
	public, err := x509.MarshalPKIXPublicKey(key.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(oidctest.PublicJWK(key))
	if err != nil {
		t.Fatal(err)
	}
	good := sign(nil)
	parts := strings.Split(good, ".")
	rsa := oidctest.NewKey(t, "key-1", "RS256") // under the name of the issuer's key
	const id = "acme/widgets/1"
	const unauthorized, forbidden = http.StatusUnauthorized, http.StatusForbidden
	for name, test := range map[string]struct {
		token    string
		status   int
		sentence string
	}{
		"no signature":                 {oidctest.Unsigned(t, std(nil)), unauthorized, "signed with the algorithm none, which is not accepted"},
		"none over a good signature":   {oidctest.Sign(t, key, std(nil), oidctest.Claims{"alg": "none"}), unauthorized, "the algorithm none, which is not accepted"},
		"HS256 with the public key":    {oidctest.SignHMAC(t, public, key.ID, std(nil)), unauthorized, "the algorithm HS256, which is not accepted"},
		"HS256 with the JWK":           {oidctest.SignHMAC(t, jwk, key.ID, std(nil)), unauthorized, "the algorithm HS256, which is not accepted"},
		"wrong audience":               {sign(oidctest.Claims{"aud": "wss://else.example.org"}), unauthorized, "is for the audience wss://else.example.org, and this server is " + audience},
		"many audiences, none of them": {sign(oidctest.Claims{"aud": []string{"a", "b"}}), unauthorized, "is for the audience a b"},
		"no audience":                  {sign(oidctest.Claims{"aud": nil}), unauthorized, "is for the audience"},
		"wrong issuer":                 {other.Token(audience, github(nil)), unauthorized, "is of the issuer " + other.URL + ", which this server does not accept"},
		"another issuer's key":         {oidctest.Sign(t, other.Key(), std(nil), nil), unauthorized, "signature is not its issuer's"},
		"expired":                      {sign(oidctest.Claims{"iat": now.Add(-time.Hour).Unix(), "nbf": nil, "exp": now.Add(-2 * time.Minute).Unix()}), unauthorized, "the OIDC token expired at "},
		"never expires":                {sign(oidctest.Claims{"exp": nil}), unauthorized, "does not say when it was issued and when it ends"},
		"good for a year":              {sign(oidctest.Claims{"exp": now.AddDate(1, 0, 0).Unix()}), unauthorized, "good for longer than 24h"},
		"not yet valid":                {sign(oidctest.Claims{"nbf": now.Add(2 * time.Minute).Unix()}), unauthorized, "is not valid before "},
		"issued in the future":         {sign(oidctest.Claims{"iat": now.Add(2 * time.Minute).Unix()}), unauthorized, "was issued in the future"},
		"unknown key":                  {oidctest.Sign(t, oidctest.NewKey(t, "who?", "ES256"), std(nil), nil), unauthorized, "signed with the key who?, which its issuer does not have"},
		"the name of a key only":       {oidctest.Sign(t, oidctest.NewKey(t, key.ID, "ES256"), std(nil), nil), unauthorized, "signature is not its issuer's"},
		"another algorithm":            {oidctest.Sign(t, rsa, std(nil), nil), unauthorized, "signed with the key key-1, which its issuer does not have"},
		"own key in the header":        {oidctest.Sign(t, rsa, std(nil), oidctest.Claims{"jwk": oidctest.PublicJWK(rsa), "kid": nil}), unauthorized, "which its issuer does not have"},
		"changed claims":               {parts[0] + "." + base64.RawURLEncoding.EncodeToString(mustJSON(t, std(oidctest.Claims{"run_id": "1"}))) + "." + parts[2], unauthorized, "signature is not its issuer's"},
		"truncated signature":          {parts[0] + "." + parts[1] + "." + parts[2][:64], unauthorized, "signature is not its issuer's"},
		"truncated claims":             {parts[0] + "." + parts[1][:len(parts[1])/2] + "." + parts[2], unauthorized, "malformed"},
		"without its signature":        {parts[0] + "." + parts[1] + ".", unauthorized, "signature is not its issuer's"},
		"two parts":                    {parts[0] + "." + parts[1], unauthorized, "the token is none of this server's"},
		"oversize":                     {sign(oidctest.Claims{"pad": strings.Repeat("x", 9<<10)}), unauthorized, "the OIDC token is longer than 12 KiB"},
		"no token":                     {"x.y.z", unauthorized, "malformed"},
		"wrong repository":             {sign(oidctest.Claims{"repository": "evil/widgets", "repository_owner_id": "666"}), forbidden, "no rule of the server's policy lets this OIDC token in"},
		"a name that was taken over":   {sign(oidctest.Claims{"repository_owner_id": "666"}), forbidden, "no rule of the server's policy"},
		"a pull request of a fork":     {sign(oidctest.Claims{"event_name": "pull_request_target", "head_ref": "evil"}), forbidden, "no rule of the server's policy"},
		"another repository's id":      {sign(oidctest.Claims{"repository": "acme/gadgets"}), forbidden, "only for acme/gadgets/**"},
		"stars in a claim":             {sign(oidctest.Claims{"repository": "acme/*"}), forbidden, "is not for the id"},
		"a merge request of a fork":    {oidctest.Sign(t, key, issuer.Standard(audience, gitlab(oidctest.Claims{"ref": "refs/merge-requests/1/head", "ref_protected": "false", "pipeline_source": "merge_request_event"})), nil), forbidden, "no rule of the server's policy"},
		"somebody else's runner":       {oidctest.Sign(t, key, issuer.Standard(audience, gitlab(oidctest.Claims{"runner_id": 55})), nil), forbidden, "no rule of the server's policy"},
		"a client's token":             {oidctest.Sign(t, key, issuer.Standard(audience, oidctest.Claims{"groups": []string{"staff"}}), nil), forbidden, "no rule of the server's policy"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.register(id, visitor{token: test.token})
			wantRefused(t, err, test.status, test.sentence)
			if e := h.trail.next("agent.refused"); e.Status != test.status || !strings.Contains(e.Result, test.sentence) {
				t.Errorf("the audit log says %+v", e)
			}
		})
	}
	// And the good one is good, all the same.
	h.in(id, visitor{token: good})
	if e := h.trail.next("agent.registered"); e.Subject != "repo:acme/widgets:ref:refs/heads/main" || e.Issuer != issuer.URL || e.Rule != "acme" ||
		e.Credential != "oidc" || e.Claims["repository"] != "acme/widgets" || e.Claims["run_id"] != "99" || e.ID != id {
		t.Errorf("the audit log says %+v", e)
	}
	for _, part := range parts {
		if strings.Contains(h.trail.all(), part) {
			t.Error("the audit log holds a part of a token")
		}
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestBoundToKey: a token is for the first run key that it comes with, and that
// key then stands for the token, whatever becomes of it, but for nothing more.
func TestBoundToKey(t *testing.T) {
	issuer := oidctest.New(t)
	h := open(t, "", policyFor(issuer), limits.Config{})
	const id, second = "acme/widgets/1", "acme/widgets/2"
	key, thief := fakeagent.NewKey(), fakeagent.NewKey()
	public, _ := key.Public().(ed25519.PublicKey)
	token := issuer.Token(audience, github(nil))
	h.in(id, visitor{token: token, key: key})

	// The same token with another key, under any id and with the key's name.
	_, err := h.register(second, visitor{token: token, key: thief})
	wantRefused(t, err, 0, "has been used by another agent")
	_, err = h.register(second, visitor{token: token, key: thief, named: public})
	wantRefused(t, err, 0, "the agent's run key is not the one that came with its OIDC token")
	// The same jti in another text of the token.
	claims := issuer.Standard(audience, github(oidctest.Claims{"jti": "one"}))
	h.in("acme/widgets/3", visitor{token: oidctest.Sign(t, issuer.Key(), claims, nil)})
	again := oidctest.Sign(t, issuer.Key(), claims, oidctest.Claims{"extra": "x"})
	_, err = h.register("acme/widgets/4", visitor{token: again, key: thief})
	wantRefused(t, err, 0, "has been used by another agent")

	// The agent itself comes back: with the token, without one, with one that
	// has expired or was never good, while the issuer is gone.
	issuer.Break(true)
	for _, old := range []string{token, "", "x.y.z"} {
		h.in(id, visitor{token: old, key: key})
	}
	if e := h.trail.next("agent.registered"); e.Credential != "oidc" {
		t.Errorf("first by %q", e.Credential)
	}
	h.trail.next("agent.registered") // the one with a jti
	if e := h.trail.next("agent.registered"); e.Credential != "key" || e.Subject == "" {
		t.Errorf("then by %q of %q", e.Credential, e.Subject)
	}
	h.in(second, visitor{key: key}) // what the token allows, the key does
	_, err = h.register("acme/gadgets/1", visitor{key: key})
	wantRefused(t, err, http.StatusUnauthorized, "lets nobody in without a credential")
	_, err = h.register(id, visitor{key: thief})
	wantRefused(t, err, http.StatusUnauthorized, "lets nobody in without a credential")
}

// TestIssuerGone: what cannot be checked is refused for now, not for good.
func TestIssuerGone(t *testing.T) {
	issuer := oidctest.New(t)
	h := open(t, "", policyFor(issuer), limits.Config{})
	issuer.Break(true)
	_, err := h.register("acme/widgets/1", visitor{token: issuer.Token(audience, github(nil))})
	wantRefused(t, err, http.StatusServiceUnavailable, "cannot get the keys of the issuer "+issuer.URL)
}

// TestClientsByOIDC: the same door for people.
func TestClientsByOIDC(t *testing.T) {
	issuer := oidctest.New(t)
	h := open(t, "", policyFor(issuer), limits.Config{})
	staff := issuer.Token(audience, oidctest.Claims{"groups": []string{"other", "staff"}})
	wantRefused(t, h.client("job", visitor{token: staff}), http.StatusNotFound, "no agent is registered")
	wantRefused(t, h.client("job", visitor{}), http.StatusUnauthorized, "lets nobody in without a credential")
	wantRefused(t, h.client("job", visitor{token: issuer.Token(audience, oidctest.Claims{"groups": "guests"})}), http.StatusForbidden, "no rule")
	wantRefused(t, h.client("job", visitor{token: issuer.Token(audience, github(nil))}), http.StatusForbidden, "no rule")
}

// TestPolicyRevokes: a rule that goes ends the registrations that it let in,
// and their keys stand for nothing any more.
func TestPolicyRevokes(t *testing.T) {
	issuer := oidctest.New(t)
	h := open(t, "", policyFor(issuer), limits.Config{})
	key := fakeagent.NewKey()
	conn := h.in("acme/widgets/1", visitor{token: issuer.Token(audience, github(nil)), key: key})
	stays := h.in("gitlab/1", visitor{token: issuer.Token(audience, gitlab(nil))})

	h.write(h.policy, "issuers: [")
	h.guard.Reload() // a mistake revokes nothing
	h.in("acme/widgets/1", visitor{key: key})
	_ = conn.Close()
	conn = h.in("acme/widgets/1", visitor{key: key})

	h.write(h.policy, strings.Replace(policyFor(issuer), "repository_owner_id: 7", "repository_owner_id: 8", 1))
	h.guard.Reload()
	wantGone(t, conn, "let this credential in no more")
	_, err := h.register("acme/widgets/1", visitor{key: key})
	wantRefused(t, err, http.StatusUnauthorized, "without a credential")
	_, err = h.register("acme/widgets/1", visitor{key: key, token: issuer.Token(audience, github(nil))})
	wantRefused(t, err, http.StatusForbidden, "no rule")
	for {
		if e := h.trail.next("agent.gone"); e.Result == "revoked" {
			break
		}
	}
	if err := os.Remove(h.policy); err != nil {
		t.Fatal(err)
	}
	h.guard.Reload()
	if err := fakeagentAlive(stays); err != nil {
		t.Errorf("an agent whose rule is there was ended: %v", err)
	}
}
