package main

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"net/http"
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
// handshake. $KEY is a public key, and host_key a private one.
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
		env.Vars = append(env.Vars, "WS="+plain.Address.String(), "WSS="+secure.Address.String(),
			"NOTLS=wss://"+plain.Address.Host, "NOBODY=127.0.0.1:1", "KEY="+line)
		for name, text := range map[string][]byte{
			"ca.pem":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}),
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
