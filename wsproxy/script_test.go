package main

import (
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// fakeKey is the script's server among the values of a testscript.
type fakeKey struct{}

// TestScripts runs testdata/script. Each script has a server of its own at
// $WS, the same at $NOTLS with the wrong scheme and at $PROXY, a TLS one at
// $WSS with its certificate in ca.pem, and in $NOBODY an address where nobody
// listens.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			plain, secure := newFake(false), newFake(true)
			env.Defer(plain.end)
			env.Defer(secure.end)
			env.Values[fakeKey{}] = plain
			env.Vars = append(env.Vars, "WS="+plain.url(""), "WSS="+secure.url(""),
				"NOTLS=wss://"+plain.Listener.Addr().String(), "PROXY="+plain.URL, "NOBODY=127.0.0.1:1", "GORACE="+raceOptions)
			certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
			return os.WriteFile(filepath.Join(env.WorkDir, "ca.pem"), certificate, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"proxied": proxied,
		},
	})
}

// exits CODE PROGRAM ARGS runs a program that must exit with that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v exited with %d, want %d", args[1:], got, want)
	}
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
