package rawio_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"example.com/converge/pkg/rawio"
)

// pair returns both ends of a TCP connection as the package has them.
func pair() (a, b net.Conn, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	defer listener.Close()
	if a, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		return nil, nil, nil, err
	}
	if b, err = listener.Accept(); err != nil {
		_ = a.Close()
		return nil, nil, nil, err
	}
	a, b = rawio.Conn(a), rawio.Conn(b)
	return a, b, func() { _, _ = a.Close(), b.Close() }, nil
}

func TestConn(t *testing.T) { nettest.TestConn(t, pair) }

// TestConnErrors wants the errors that a TCP connection has.
func TestConnErrors(t *testing.T) {
	a, b, stop, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	check := func(op string, err, want error) {
		t.Helper()
		var network *net.OpError
		if !errors.Is(err, want) || !errors.As(err, &network) || network.Op != op || network.Addr == nil {
			t.Errorf("%s: %v, want one of the network that is %v", op, err, want)
		}
	}
	half, ok := a.(interface{ CloseWrite() error })
	if !ok {
		t.Fatal("it cannot end one direction")
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v at the end", n, err)
	}
	_ = a.SetReadDeadline(time.Unix(1, 0))
	_, err = a.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("after a deadline: %v", err)
	}
	_ = a.Close()
	_, err = a.Read(make([]byte, 1))
	check("read", err, net.ErrClosed)
	_, err = a.Write(make([]byte, 1))
	check("write", err, net.ErrClosed)
}

func TestConnOthers(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if rawio.Conn(a) != a {
		t.Error("something else became of what is no TCP connection")
	}
}
