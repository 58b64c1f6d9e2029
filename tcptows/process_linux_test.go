package main

import (
	"net"
	"syscall"
	"testing"
)

// TestBind uses addresses of the loopback network that nobody else does, so
// that a port that was free stays so.
func TestBind(t *testing.T) {
	url := newFake(t) + "/client/id"
	p := start(t, "--bind", "127.84.7.1", "0", url)
	host, port, err := net.SplitHostPort(p.address)
	if err != nil || host != "127.84.7.1" || port == "0" {
		t.Fatalf("it listens on %s", p.address)
	}
	p.end(t, syscall.SIGTERM)
	t.Setenv("CONVERGE_TCPTOWS_BIND", "127.84.7.1")
	again := start(t, port, url)
	if again.address != p.address {
		t.Errorf("it listens on %s, not on %s", again.address, p.address)
	}
	exchange(t, again.dial(t), "")
	again.end(t, syscall.SIGTERM)
}
