package main

import (
	"net"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/converge/pkg/clitest"
)

// TestScripts runs testdata/script: what tcptows says before it serves. $USED
// is a port of 127.0.0.1 that is in use.
func TestScripts(t *testing.T) {
	clitest.Run(t, func(env *testscript.Env) error {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		env.Defer(func() { _ = listener.Close() })
		_, port, err := net.SplitHostPort(listener.Addr().String())
		env.Vars = append(env.Vars, "USED="+port)
		return err
	}, nil)
}
