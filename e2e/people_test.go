//go:build linux

package e2e

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// forge is one with its own authority, whose users have the keys that a test
// gives them.
type forge struct {
	url, ca string

	mu    sync.Mutex
	pages map[string]string // by path
}

func startForge(t *testing.T) *forge {
	t.Helper()
	f := &forge{pages: map[string]string{}}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		text, ok := f.pages[r.URL.Path]
		f.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, text)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	f.url = s.URL
	f.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(f.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// has gives a user keys; none makes an empty page.
func (f *forge) has(user string, keys ...identity) {
	var b strings.Builder
	for _, key := range keys {
		fmt.Fprintln(&b, key.public)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pages["/"+user+".keys"] = b.String()
}

// TestForgeKeys: users of forges log in with stock ssh and the keys that they
// have there, and with no others; when a key is removed there, it lets nobody in
// from the next refresh on, and who is in stays.
func TestForgeKeys(t *testing.T) {
	s, f := startServer(t), startForge(t)
	alice, bob, carol, mallory := newIdentity(t), newIdentity(t), newIdentity(t), newIdentity(t)
	f.has("alice", alice)
	f.has("bob", bob)
	f.has("acme/carol", carol)
	f.has("mallory", mallory)
	a := linesOf(t, start(t, nil, tool("agent"), "--keep", "--shell", "/bin/bash", "--wsproxy", tool("wsproxy"), "--ca", f.ca,
		"--github-user", "alice", "--github-url", f.url, "--gitea-user", "bob", "--gitea-url", f.url+"/",
		"--gitlab-user", "carol", "--gitlab-url", f.url+"/acme", "--keys-refresh", "10s", s.ws("/agent/"+uniqueID())))
	if strings.Contains(a.out.String(), "password") {
		t.Error("a password is offered beside the keys")
	}
	as := func(who identity) result {
		return viaWsproxy(who, a.clientURL()).ssh(t, nil, "echo in")
	}
	denied := func(who identity) {
		t.Helper()
		if r := as(who); r.code != 255 || !strings.Contains(r.stderr, "Permission denied (publickey)") {
			t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
		}
	}
	for _, who := range []identity{alice, bob, carol} {
		as(who).must(t)
	}
	denied(mallory)
	open := start(t, nil, "ssh", append(viaWsproxy(bob, a.clientURL()).options, "abc@localhost", "echo in; cat")...)
	open.out.Await(t, "in", 1)

	fresh := newIdentity(t)
	f.has("bob")
	f.has("alice", fresh)
	a.out.Await(t, `a source has no key any more: nobody can log in with its keys from now on" source=.*bob`, 1)
	a.out.Await(t, `keys have changed" source=.*alice`, 1)
	denied(bob)
	denied(alice)
	as(fresh).must(t)
	as(carol).must(t)
	select {
	case <-open.done:
		t.Errorf("who was in was thrown out: %s", open.out)
	default:
	}
}

// TestForgeFaults: an agent that nobody could log in to does not start.
func TestForgeFaults(t *testing.T) {
	s, f := startServer(t), startForge(t)
	f.has("empty")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a user without keys":       {[]string{"--ca", f.ca, "--github-user", "empty", "--github-url", f.url}, "nobody is let in: "},
		"no such user":              {[]string{"--ca", f.ca, "--gitea-user", "nobody", "--gitea-url", f.url}, "nobody is let in: "},
		"an unknown authority":      {[]string{"--insecure", "--gitlab-user", "empty", "--gitlab-url", f.url}, "certificate"},
		"a forge that is not TLS's": {[]string{"--github-user", "x", "--github-url", strings.Replace(f.url, "https", "http", 1)}, "https"},
	} {
		t.Run(name, func(t *testing.T) {
			r := runCommand(t, nil, tool("agent"), append(test.args, s.ws("/agent/"+uniqueID()))...)
			if r.code == 0 || !strings.Contains(r.stderr, test.want) || strings.Contains(r.stdout, "can be entered") {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %q in it", r.code, r.stdout, r.stderr, test.want)
			}
		})
	}
}

// TestGuessing: an address that guesses tokens, ids or dial-backs is told
// nothing more after so many wrong guesses, right ones included; others notice
// nothing. It is a count and no clock that is tested: the bucket may have run a
// little meanwhile.
func TestGuessing(t *testing.T) {
	ci, ciLine := makeToken(t, "ci", "agent")
	alice, aliceLine := makeToken(t, "alice", "client")
	const failures = 20
	s := startServer(t, "--tokens", writeLines(t, ciLine, aliceLine), "--trusted-proxy", "127.0.0.1", "--max-failures", fmt.Sprint(failures))
	a := printed(t, agentCommand(s.ws("/agent/"+uniqueID()), newIdentity(t), "--keep", "--token", "@"+writeLines(t, ci))...)
	for number, test := range []struct {
		name, path string
		header     func(i int) http.Header
		answer     int
	}{
		{"clients' tokens", "/client/" + a.id, func(i int) http.Header { return bearer(fmt.Sprint("cvg_guess", i)) }, http.StatusUnauthorized},
		{"agents' tokens", "/agent/x", func(i int) http.Header { return bearer(fmt.Sprint("guess", i)) }, http.StatusUnauthorized},
		{"ids", "/client/guess", func(int) http.Header { return bearer(alice) }, http.StatusNotFound},
		{"dial-backs", "/data", func(i int) http.Header {
			return http.Header{"Converge-Client": {fmt.Sprint(i)}, "Converge-Token": {"guess"}}
		}, http.StatusForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			from := fmt.Sprintf("192.0.2.%d", number+1)
			begun := time.Now()
			told, limited := 0, 0
			for i := 0; limited < 3 && i < 10*failures; i++ {
				got, err := knock(t.Context(), s.addr, from, test.path, test.header(i))
				switch {
				case err != nil:
					t.Fatal(err)
				case got == test.answer:
					told++
				case got == http.StatusTooManyRequests:
					limited++
				default:
					t.Fatalf("answer %d", got)
				}
			}
			if most := failures*(1+time.Since(begun).Minutes()) + 1; limited == 0 || float64(told) > most || told < failures {
				t.Errorf("%d guesses were answered, at least %d and at most %.0f are right; %d were not", told, failures, most, limited)
			}
		})
	}
}

// TestGuesserIsHeldUp: stock ssh with everything that is right, from where the
// guesses come and go on coming, and from elsewhere.
func TestGuesserIsHeldUp(t *testing.T) {
	ci, ciLine := makeToken(t, "ci", "agent")
	alice, aliceLine := makeToken(t, "alice", "client")
	s := startServer(t, "--tokens", writeLines(t, ciLine, aliceLine), "--trusted-proxy", "127.0.0.1", "--max-failures", "1")
	a := printed(t, agentCommand(s.ws("/agent/"+uniqueID()), newIdentity(t), "--keep", "--token", "@"+writeLines(t, ci))...)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan struct{})
	var guessing sync.WaitGroup
	guessing.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			if status, err := knock(ctx, s.addr, "192.0.2.1", "/client/"+a.id, bearer("cvg_guess")); ctx.Err() == nil && err != nil {
				t.Error(err)
			} else if i == 0 && status != http.StatusUnauthorized || i > 0 && status == http.StatusSwitchingProtocols {
				t.Errorf("guess %d: %d", i, status)
			}
			if i == 0 {
				close(first)
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	defer guessing.Wait()
	defer cancel()
	<-first
	// The header is what a proxy would add.
	from := func(address string) string {
		return "CONVERGE_WSPROXY_HEADER=@" + writeLines(t, "X-Forwarded-For: "+address, "Authorization: Bearer "+alice)
	}
	a.refused(t, "too many failed attempts from your address: try again in ", from("192.0.2.1"))
	a.allowed(t, from("192.0.2.99"))
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// knock asks for a websocket from an address, as far as the server knows, and
// returns the status.
func knock(ctx context.Context, server, from, path string, header http.Header) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+server+path, nil)
	if err != nil {
		return 0, err
	}
	req.Header = header.Clone()
	for name, value := range map[string]string{
		"X-Forwarded-For": from, "Connection": "Upgrade", "Upgrade": "websocket",
		"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
	} {
		req.Header.Set(name, value)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
		return 0, errors.New("429 without Retry-After")
	}
	return resp.StatusCode, nil
}
