//go:build linux

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/pkg/oidctest"
)

// TestReplayedRegistration: whoever carried an agent's registration knows every
// word of it, its credential and its tickets, and does not get its id with
// them, as long as there is somebody who has it. When he does get it, the
// printed lines do not lead to him.
func TestReplayedRegistration(t *testing.T) {
	key := filepath.Join(t.TempDir(), "state.key")
	makeStateKey(t, key)
	token, line := makeToken(t, "ci", "agent", "acme/**")
	flags := []string{"--state-key", key, "--tokens", writeLines(t, line), "--anonymous", "client"}
	s := startServer(t, flags...)
	h := startHostile(t, s.addr)
	id := "acme/" + uniqueID()
	a := printed(t, agentCommand("ws://"+h.addr+"/agent/"+id, newIdentity(t), "--keep", "--token", "@"+writeLines(t, token))...)
	a.allowed(t)

	wants := func(answer, want string) {
		t.Helper()
		if !strings.HasPrefix(answer, want) {
			t.Errorf("the server answered %q, want %q", answer, want)
		}
	}
	wants(h.order(t, "replay", "id", id, "server", s.addr), "refused (proof): ")
	wants(h.order(t, "steal", "id", id, "as", id, "server", s.addr), "refused (id-taken): ")
	a.allowed(t)

	// The agent lost its connection: its id is kept.
	a.kill(t)
	s.out.Await(t, `msg="agent gone" id=`+id, 1)
	wants(h.order(t, "replay", "id", id, "server", s.addr), "refused (proof): ")
	wants(h.order(t, "steal", "id", id, "as", id, "server", s.addr), "refused (id-taken): ")

	// The server forgets it, and first come is first served. A static token is
	// good for whoever has it, which is why agents want wss.
	s.kill(t)
	s = s.restart(t, flags...)
	wants(h.order(t, "replay", "id", id, "server", s.addr), "refused (proof): ")
	wants(h.order(t, "steal", "id", id, "as", id, "server", s.addr), "registered")
	a.refused(t, "Host key verification failed")
	if got := h.seen(t); got.Exchanged != 0 || len(got.Logins) != 0 {
		t.Errorf("the impostor has got %+v", got)
	}
	// Those who check no key are in his hands.
	lax := runCommand(t, nil, "ssh", append(viaWsproxy(newIdentity(t), a.clientURL()).options, "abc@localhost", "true")...).must(t)
	if lax.stdout != "this is not your job\n" {
		t.Errorf("%q", lax.stdout)
	}
}

// TestStolenOIDCToken: the same with a token of the CI system, which is bound to
// the agent's run key.
func TestStolenOIDCToken(t *testing.T) {
	issuer := oidctest.New(t)
	s := startServer(t, "--policy", writeLines(t, policyFor(issuer)), "--anonymous", "client")
	h := startHostile(t, s.addr)
	id := "acme/widgets/" + uniqueID()
	token := issuer.Token(oidcAudience, githubClaims(nil))
	a := printed(t, agentCommand("ws://"+h.addr+"/agent/"+id, newIdentity(t), "--keep", "--oidc-token", "@"+writeLines(t, token))...)
	a.allowed(t)
	for _, as := range []string{id, "acme/widgets/free"} {
		if got := h.order(t, "steal", "id", id, "as", as, "server", s.addr); !strings.Contains(got, "has been used by another agent") {
			t.Errorf("as %s: %q", as, got)
		}
	}
	if got := h.order(t, "replay", "id", id, "server", s.addr); !strings.HasPrefix(got, "refused (proof): ") {
		t.Errorf("%q", got)
	}
	a.allowed(t)
}
