package wsconn

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestPeerCloses(t *testing.T) {
	for _, test := range []struct {
		payload []byte
		want    *CloseError // nil for io.EOF
		text    string
	}{
		{closing(1000, ""), nil, "EOF"},
		{closing(1001, "going"), nil, "EOF"},
		{nil, &CloseError{1005, ""}, "the peer closed the websocket without giving a close code"},
		{closing(1008, "no such agent"), &CloseError{1008, "no such agent"}, "the peer closed the websocket: no such agent (close code 1008)"},
		{closing(1012, ""), &CloseError{1012, ""}, "the peer closed the websocket with close code 1012"},
		{closing(4999, "red \x1b[31m\n"), &CloseError{4999, "red ?[31m?"}, "the peer closed the websocket: red ?[31m? (close code 4999)"},
	} {
		both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
			peer.send(peer.frame(fin|binaryFrame, []byte("last words")), peer.frame(fin|closeFrame, test.payload))
			wantRead(t, conn, "last words")
			wantEnd(t, conn, func(err error) bool {
				var got *CloseError
				if test.want == nil {
					return err == io.EOF
				}
				return errors.As(err, &got) && *got == *test.want && err.Error() == test.text && !errors.Is(err, io.EOF)
			})
			// The close frame was answered with the same.
			if first, payload, err := peer.receive(); err != nil || first != fin|closeFrame || string(payload) != string(test.payload) {
				t.Errorf("answered %#x %q, %v", first, payload, err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}, nil)
	}
	both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
		// A close frame may stand between two fragments.
		peer.send(peer.frame(binaryFrame, []byte("half")), peer.frame(fin|closeFrame, closing(1012, "restarting")))
		wantRead(t, conn, "half")
		wantEnd(t, conn, func(err error) bool {
			var got *CloseError
			return errors.As(err, &got) && got.Code == 1012
		})
	}, nil)
}

func TestCloseWith(t *testing.T) {
	long := strings.Repeat("ä", 70)
	for _, test := range []struct {
		code   int
		reason string
		sent   uint16
		text   string
		fails  bool
	}{
		{NormalClosure, "", 1000, "", false},
		{ServiceRestart, "restarting", 1012, "restarting", false},
		{4000, long, 4000, long[:122], false},
		{4000, long[:122] + "x", 4000, long[:122] + "x", false},
		{4000, "broken \xff", 4000, "broken ?", false},
		{1005, "x", 1011, "x", true},
		{0, "", 1011, "", true},
		{5000, "", 1011, "", true},
	} {
		both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
			var all sync.WaitGroup
			all.Go(func() { peer.wantClose(test.sent, test.text) })
			if err := conn.CloseWith(test.code, test.reason); (err != nil) != test.fails {
				t.Errorf("CloseWith(%d): %v", test.code, err)
			}
			all.Wait()
			if err := conn.Close(); err != nil {
				t.Errorf("the second time: %v", err)
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read: %v", err)
			}
			if _, err := conn.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write: %v", err)
			}
			if err := conn.SetDeadline(time.Now().Add(time.Hour)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("SetDeadline: %v", err)
			}
		}, nil)
	}
}

func TestWrittenBytesPrecedeTheClose(t *testing.T) {
	client, server := serve(t, quiet, false).dial(t, quiet)
	var all sync.WaitGroup
	const size = 1 << 20
	all.Go(func() {
		if _, err := client.Write(make([]byte, size)); err != nil {
			t.Error(err)
		}
		client.Close()
	})
	if n, err := io.Copy(io.Discard, server); n != size || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	all.Wait()
	if _, err := server.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to a peer that has closed: %v", err)
	}
}

// closesInTime fails where Close waits for what will not come; nhooyr would
// wait for five seconds or more.
func closesInTime(t *testing.T, conn *Conn) {
	t.Helper()
	start := time.Now()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 4*closeTime {
		t.Errorf("Close took %v", took)
	}
}

func TestCloseWithoutAnswer(t *testing.T) {
	both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
		closesInTime(t, conn)
		peer.wantClose(1000, "")
	}, nil)
	t.Run("peer that goes on sending", func(t *testing.T) {
		both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
			var all sync.WaitGroup
			all.Go(func() {
				for frame := peer.frame(fin|binaryFrame, make([]byte, 1000)); ; {
					if _, err := peer.Write(frame); err != nil {
						return
					}
				}
			})
			closesInTime(t, conn)
			all.Wait()
		}, nil)
	})
}

func TestCloseWhileBlocked(t *testing.T) {
	for name, secure := range map[string]bool{"tcp": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			client, server := serve(t, quiet, secure).dial(t, quiet)
			var all sync.WaitGroup
			for _, conn := range []*Conn{client, server} {
				// Nobody reads, so that all that is written gets stuck.
				if err := conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
				if err := conn.SetWriteDeadline(time.Time{}); err != nil {
					t.Fatal(err)
				}
				all.Go(func() {
					// The end that is closed reads on for a moment, which may
					// be enough for the other one.
					n, err := conn.Write(make([]byte, 64<<20))
					if !errors.Is(err, net.ErrClosed) && (conn == client || n < 64<<20 && err == nil) {
						t.Errorf("Write: %d, %v", n, err)
					}
				})
			}
			closesInTime(t, client)
			closesInTime(t, server)
			all.Wait()
		})
	}
	t.Run("in Read", func(t *testing.T) {
		client, server := serve(t, quiet, false).dial(t, quiet)
		var all sync.WaitGroup
		started := make(chan struct{})
		all.Go(func() {
			close(started)
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read: %v", err)
			}
		})
		all.Go(func() {
			if _, err := server.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("Read at the other end: %v", err)
			}
		})
		<-started
		for range 4 { // concurrently
			all.Go(func() { closesInTime(t, client) })
		}
		all.Wait()
	})
}
