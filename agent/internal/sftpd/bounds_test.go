//go:build linux

package sftpd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pkg/sftp"

	"example.com/converge/pkg/watchtest"
)

// What has a length that it may not have, or has no id, ends the session
// before anything of that length is held.
func TestSFTPOutOfBounds(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"write":       binary.BigEndian.AppendUint32(nil, maxPacket+1),
		"request":     binary.BigEndian.AppendUint32(nil, maxRequest+1),
		"everything":  binary.BigEndian.AppendUint32(nil, 1<<32-1),
		"nothing":     binary.BigEndian.AppendUint32(nil, 0),
		"without id":  packet(fxpSymlink),
		"cut id":      packet(fxpClose)[:5],
		"cut request": packet(fxpOpen, 1, "file")[:12],
	} {
		kind := byte(fxpOpen)
		if name == "write" {
			kind = fxpWrite
		}
		if len(bytes) == 4 {
			bytes = append(bytes, kind)
		}
		t.Run(name, func(t *testing.T) {
			r := newRawSFTP(t, false)
			if _, err := r.client.Write(bytes); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, "cut") {
				r.client.Close()
			}
			if err := r.end(); err == nil || !strings.HasPrefix(name, "cut") && !errors.Is(err, errMalformed) {
				t.Errorf("the end: %v", err)
			}
		})
	}
}

func TestSFTPHandlesBound(t *testing.T) {
	r := newRawSFTP(t, false)
	last := r.open("file", forWriting)
	for range maxHandles - 1 {
		last = r.open("file", forReading)
	}
	for _, kind := range []byte{fxpOpen, fxpOpendir} {
		if code, why := r.status(kind, "file", forReading, 0); code != fxFailure || !strings.Contains(why, "too many") {
			t.Errorf("%d: %d %q", kind, code, why)
		}
	}
	if code, _ := r.status(fxpClose, last); code != fxOK {
		t.Fatal(code)
	}
	r.open("file", forReading)
}

// gate is a channel whose writes can be held up.
type gate struct {
	io.Reader
	open   chan struct{}
	closed chan struct{}
	once   sync.Once
	mu     sync.Mutex
	buf    bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	select {
	case <-g.open:
	case <-g.closed:
		return 0, io.ErrClosedPipe
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.Write(p)
}

func (g *gate) Close() error {
	g.once.Do(func() { close(g.closed) })
	return nil
}

// A client that asks and does not read cannot make the server hold more than
// so many requests, and is answered when it reads.
func TestSFTPAskedBound(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), noise(1<<20, 9), 0o600); err != nil {
		t.Fatal(err)
	}
	const requests = 200
	var in bytes.Buffer
	const fxpRead = 5
	for i := range requests {
		in.Write(packet(fxpRead, i+1, "1", uint64(0), maxData))
	}
	first, opened := io.Pipe()
	last, done := io.Pipe()
	g := &gate{Reader: io.MultiReader(first, &in, last), open: make(chan struct{}), closed: make(chan struct{})}
	f := newFilter(g, dir, true)
	server, err := sftp.NewServer(f, sftp.WithAllocator(), sftp.WithMaxTxPacket(maxData),
		sftp.WithServerWorkingDirectory(dir), sftp.ReadOnly())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	if _, err := opened.Write(packet(fxpOpen, 0, "file", forReading, 0)); err != nil {
		t.Fatal(err)
	}
	watchtest.Eventually(t, "an open file", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.files) == 1
	})
	opened.Close()
	asked := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.asked)
	}
	watchtest.Eventually(t, "as many requests as may be", func() bool { return asked() == maxAsked })
	close(g.open)
	watchtest.Eventually(t, "all answers", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.buf.Len() > requests*maxData
	})
	done.Close()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if n := asked(); n != 0 {
		t.Errorf("%d requests are left", n)
	}
}

// A client that leaves while the server waits for it leaves nothing behind.
func TestSFTPGoneWhileWaiting(t *testing.T) {
	r := newRawSFTP(t, false)
	h := r.open("file", forWriting)
	var batch [][]byte
	for i := range 3 * maxAsked {
		batch = append(batch, packet(fxpWrite, i, h, uint64(0), "x"))
	}
	batch = append(batch, packet(fxpExtended, 1, extFsync, h))
	r.send(batch...)
	r.next()
	r.client.Close()
	_ = r.end() // some error of the pipe
}

// FuzzFilter gives the filter what a hostile client could send. Whatever
// it passes on is a row of packets within their limits, and what it answers
// is well formed. It is read-only, so that nothing on the disk changes.
func FuzzFilter(f *testing.F) {
	f.Add(packet(fxpInit, 3))
	f.Add(bytes.Join([][]byte{
		packet(fxpOpen, 1, "file", forWriting, 0), packet(fxpWrite, 2, "1", uint64(0), "text"),
		packet(fxpExtended, 3, extFsync, "1"), packet(fxpExtended, 4, extLimits), packet(fxpClose, 5, "1"),
		packet(fxpExtended, 6, extStatVFS, "."), packet(fxpSymlink, 7, "a", "b"), packet(77, 8),
	}, nil))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		g := &gate{Reader: bytes.NewReader(data), open: make(chan struct{}), closed: make(chan struct{})}
		close(g.open)
		filter := newFilter(g, dir, true)
		for {
			head := make([]byte, 5)
			if _, err := io.ReadFull(filter, head); err != nil {
				break
			}
			length := binary.BigEndian.Uint32(head)
			if length == 0 || length > maxPacket {
				t.Fatalf("a packet of %d bytes is passed on", length)
			}
			body := make([]byte, length-1)
			if _, err := io.ReadFull(filter, body); err != nil {
				break
			}
			reply := statusPacket(1, fxOK, "")
			if head[4] == fxpOpen {
				reply = packet(fxpHandle, 1, "1")
			}
			if _, err := filter.Write(reply); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(filter.asked); n > 1 {
			t.Errorf("%d requests are left", n)
		}
		for out := g.buf.Bytes(); len(out) > 0; {
			n := binary.BigEndian.Uint32(out)
			if n < 5 || uint64(len(out)) < uint64(n)+4 {
				t.Fatalf("malformed answer %x", out)
			}
			out = out[n+4:]
		}
	})
}
