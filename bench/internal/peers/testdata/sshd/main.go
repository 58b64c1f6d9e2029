// Command sshd is the agent's SSH server alone: without rendezvous, expiry and
// registration, on whatever carrier it is told. The harness lays it over the
// agent's module for one build, because that server is internal there, and
// ships it nowhere.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/converge/agent/internal/keys"
	"example.com/converge/agent/internal/sshd"
	"example.com/converge/bench/carrier"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run takes the arguments KIND ADDRESS ID HOSTKEY AUTHORIZEDKEYS.
func run() error {
	if len(os.Args) != 6 {
		return fmt.Errorf("give KIND ADDRESS ID HOSTKEY AUTHORIZEDKEYS, not %d arguments", len(os.Args)-1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hostKey, err := keys.HostKey(os.Args[4])
	if err != nil {
		return err
	}
	allowed, err := keys.NewSet([]string{os.Args[5]}, nil, nil)
	if err != nil {
		return err
	}
	server, err := sshd.New(sshd.Config{User: "abc", HostKey: hostKey, Keys: allowed, Env: os.Environ()})
	if err != nil {
		return err
	}
	serveErr := carrier.End{
		Kind: carrier.Kind(os.Args[1]), Address: os.Args[2], ID: os.Args[3],
		Ready:  func(address string) { fmt.Println("ready", address) },
		Handle: server.HandleConn,
	}.Serve(ctx)
	out, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(out, ""); serveErr == nil {
		return err
	}
	return serveErr
}
