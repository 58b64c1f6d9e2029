package main

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/converge/pkg/clitest"
)

// fakeKey is the script's server among the values of a testscript.
type fakeKey struct{}

// TestScripts runs testdata/script. Each script has a server of its own at
// $WS, the same at $NOTLS with the wrong scheme and at $PROXY, a TLS one at
// $WSS with its certificate in ca.pem, and in $NOBODY an address where nobody
// listens.
func TestScripts(t *testing.T) {
	clitest.Run(t, func(env *testscript.Env) error {
		plain, secure := newFake(false), newFake(true)
		env.Defer(plain.end)
		env.Defer(secure.end)
		env.Values[fakeKey{}] = plain
		env.Vars = append(env.Vars, "WS="+plain.url(""), "WSS="+secure.url(""),
			"NOTLS=wss://"+plain.Listener.Addr().String(), "PROXY="+plain.URL, "NOBODY=127.0.0.1:1")
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
		return os.WriteFile(filepath.Join(env.WorkDir, "ca.pem"), certificate, 0o600)
	}, map[string]func(*testscript.TestScript, bool, []string){"proxied": proxied})
}

// proxied ADDRESS... checks the targets that the proxy was asked for so far.
func proxied(ts *testscript.TestScript, neg bool, args []string) {
	f := ts.Value(fakeKey{}).(*fake)
	f.mu.Lock()
	defer f.mu.Unlock()
	if neg || !slices.Equal(f.proxied, args) {
		ts.Fatalf("the proxy was asked for %q, want %q", f.proxied, args)
	}
}
