package main

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/converge/pkg/certtest"
	"example.com/converge/pkg/clitest"
)

// TestScripts runs testdata/script: what the server says before it serves.
// $USED is an address that is in use; cert.pem and key.pem are a pair, and
// other.pem is another pair's key. What a right command line leads to is in
// serve_test.go: in scripts it ends at $USED, with exit 1.
func TestScripts(t *testing.T) {
	clitest.Run(t, func(env *testscript.Env) error {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		env.Defer(func() { _ = listener.Close() })
		env.Vars = append(env.Vars, "USED="+listener.Addr().String())
		for _, names := range [][2]string{{"unused.pem", "other.pem"}, {"cert.pem", "key.pem"}} {
			pair, err := certtest.New(1)
			if err != nil {
				return err
			}
			if err := pair.Write(filepath.Join(env.WorkDir, names[0]), filepath.Join(env.WorkDir, names[1])); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}
