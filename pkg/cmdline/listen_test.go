package cmdline

import (
	"errors"
	"net"
	"testing"
)

func TestListenError(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().String()
	_, err = net.Listen("tcp", address)
	want := "cannot listen on " + address + ": the port is in use: choose another with --listen"
	if got := ListenError(address, "choose another with --listen", err); got.Error() != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	_, err = net.Listen("tcp", "127.0.0.1:none")
	var op *net.OpError
	if !errors.As(err, &op) {
		t.Fatal(err)
	}
	if got := ListenError("127.0.0.1:none", "choose another", err); !errors.Is(got, op.Err) {
		t.Errorf("got %v", got)
	}
}
