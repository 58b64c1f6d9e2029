package main

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/servertest"
	"example.com/converge/pkg/clitest"
)

// TestScripts runs testdata/script: what the agent says before it is
// registered. Each script has a server at $WS and a TLS one at $WSS, with its
// certificate in ca.pem, and in $NOBODY an address where nobody listens. The
// servers refuse everybody, for good, and quote path and X-Test of the
// handshake. $KEY is a public key, and host_key a private one. At $FORGE the
// users alice and bob have that key and nokeys has none; a token "s3cret" sees
// that alice is in the group acme and in the team acme/ops. Its certificate is
// in ca.pem too.
func TestScripts(t *testing.T) {
	clitest.Run(t, func(env *testscript.Env) error {
		plain, secure := servertest.New(), servertest.NewTLS()
		for _, server := range []*servertest.Server{plain, secure} {
			env.Defer(server.End)
			server.Answer(func(w http.ResponseWriter, r *http.Request) {
				http.Error(w, fmt.Sprintf("not here: %s %q", r.URL.Path, r.Header["X-Test"]), http.StatusForbidden)
			})
		}
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			return err
		}
		key, err := ssh.NewPublicKey(public)
		if err != nil {
			return err
		}
		block, err := ssh.MarshalPrivateKey(private, "")
		if err != nil {
			return err
		}
		line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
		forge := httptest.NewTLSServer(forgeOf(line))
		forge.Config.ErrorLog = log.New(io.Discard, "", 0) // who does not trust it says so
		env.Defer(forge.Close)
		env.Vars = append(env.Vars, "WS="+plain.Address.String(), "WSS="+secure.Address.String(),
			"NOTLS=wss://"+plain.Address.Host, "NOBODY=127.0.0.1:1", "KEY="+line, "FORGE="+forge.URL)
		for name, text := range map[string][]byte{
			"ca.pem": append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}),
				pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: forge.Certificate().Raw})...),
			"host_key": pem.EncodeToMemory(block),
			"keys":     []byte(line + "\n"),
		} {
			if err := os.WriteFile(filepath.Join(env.WorkDir, name), text, 0o600); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}

// forgeOf is a forge of any kind.
func forgeOf(key string) http.HandlerFunc {
	const token = "s3cret"
	pages := map[string]string{
		"/alice.keys": key, "/~alice.keys": key, "/bob.keys": key, "/nokeys.keys": "",
		"/api/v3/users/alice/keys": `[{"key":"` + key + `"}]`,
		"/api/v4/users/alice/keys": `[{"key":"` + key + `"}]`,
		"/api/v1/users/alice/keys": `[{"key":"` + key + `"}]`,

		"/api/v3/orgs/acme/teams/ops/members": `[{"login":"alice","type":"User"}]`,
		"/api/v4/groups/acme/members/all":     `[{"username":"alice","state":"active","access_level":40}]`,
		"/api/v1/orgs/acme/members":           `[{"login":"alice"}]`,
	}
	return func(w http.ResponseWriter, r *http.Request) {
		text, ok := pages[r.URL.Path]
		api := strings.HasPrefix(r.URL.Path, "/api/")
		switch auth := r.Header.Get("Authorization"); {
		case !ok:
			http.NotFound(w, r)
			return
		case api && auth != "Bearer "+token && auth != "token "+token:
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		case r.URL.Query().Get("page") > "1":
			text = "[]"
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, text)
	}
}
