//go:build linux

package sshd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/sftpd"
)

// writes records what arrives, write by write.
type writes struct {
	net.Conn
	mu   sync.Mutex
	list [][]byte
	err  error
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	w.list = append(w.list, bytes.Clone(p))
	return len(p), nil
}

func (w *writes) Close() error { return nil }

// sizes returns how long the writes were.
func (w *writes) sizes() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	var sizes []int
	for _, p := range w.list {
		sizes = append(sizes, len(p))
	}
	return sizes
}

// all returns what has arrived.
func (w *writes) all() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Join(w.list, nil)
}

func TestJoiner(t *testing.T) {
	const full = libraryBuffer
	for name, test := range map[string]struct{ in, want []int }{
		"small ones":              {[]int{1, 100, full - 1}, []int{1, 100, full - 1}},
		"a packet in two":         {[]int{full, 28 << 10, 7}, []int{32 << 10, 7}},
		"a packet in three":       {[]int{full, full, 9}, []int{2 * full, 9}},
		"two packets":             {[]int{full, 9, full, 10}, []int{full + 9, full + 10}},
		"one too long to join":    {[]int{full, 33 << 10}, []int{full, 33 << 10}},
		"one as long as a buffer": {[]int{3, full}, []int{3, full}},
		"large at once":           {[]int{100 << 10}, []int{100 << 10}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &writes{}
				j := &joiner{Conn: w}
				defer j.Close()
				want := noise(256<<10, 13)
				sent := 0
				for _, n := range test.in {
					if got, err := j.Write(want[sent : sent+n]); got != n || err != nil {
						t.Fatalf("%d %v", got, err)
					}
					sent += n
				}
				time.Sleep(joinWait)
				synctest.Wait()
				if got := w.sizes(); !slices.Equal(got, test.want) {
					t.Errorf("writes of %v, want %v", got, test.want)
				}
				same(t, "the bytes", w.all(), want[:sent])
			})
		})
	}
}

// Between cork and uncork packets go out together.
func TestJoinerCork(t *testing.T) {
	const packet = 32<<10 + 50
	synctest.Test(t, func(t *testing.T) {
		w := &writes{}
		j := &joiner{Conn: w}
		defer j.Close()
		want := noise(1<<20, 17)
		sent := 0
		write := func(sizes ...int) {
			t.Helper()
			for _, n := range sizes {
				if got, err := j.Write(want[sent : sent+n]); got != n || err != nil {
					t.Fatalf("%d %v", got, err)
				}
				sent += n
			}
		}
		piece := []int{libraryBuffer, packet - libraryBuffer}
		check := func(what string, sizes ...int) {
			t.Helper()
			if got := w.sizes(); !slices.Equal(got, sizes) {
				t.Errorf("%s: writes of %v, want %v", what, got, sizes)
			}
			w.list, want, sent = nil, want[sent:], 0
		}

		j.cork()
		write(slices.Concat(piece, piece, piece, piece)...)
		if got := w.sizes(); len(got) != 0 {
			t.Errorf("before uncork: writes of %v", got)
		}
		j.uncork()
		same(t, "the bytes", w.all(), want[:sent])
		check("four packets", 4*packet)

		j.cork()
		write(slices.Concat(piece, piece, piece, piece, piece)...)
		j.cork() // of another channel
		j.uncork()
		j.uncork()
		same(t, "the bytes", w.all(), want[:sent])
		check("five packets", 4*packet, packet)

		// The client's window is used up after the first one: it goes, and
		// nobody else has to wait from then on.
		j.cork()
		write(piece...)
		time.Sleep(joinWait)
		synctest.Wait()
		write(100)
		write(piece...)
		j.uncork()
		check("a stall", packet, 100, packet)

		j.cork()
		write(bulkMost + 1)
		j.uncork()
		check("more than there is room for", bulkMost+1)
		write(7)
		check("afterwards", 7)
	})
}

// An error of uncork is that of the next Write.
func TestJoinerCorkError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &joiner{Conn: &writes{err: io.ErrShortBuffer}}
		j.cork()
		if _, err := j.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		j.uncork()
		if _, err := j.Write([]byte("x")); err != io.ErrShortBuffer {
			t.Errorf("after an error: %v", err)
		}
		j.cork()
		_ = j.Close()
		j.uncork()
	})
}

// What was held back is not sent after Close, and an error of it is told.
func TestJoinerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		piece := make([]byte, libraryBuffer)
		w := &writes{}
		j := &joiner{Conn: w}
		if _, err := j.Write(piece); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(j.Close(), j.Close()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := w.sizes(); len(got) != 0 {
			t.Errorf("writes of %v", got)
		}
		if _, err := j.Write(piece); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}

		j = &joiner{Conn: &writes{err: io.ErrShortBuffer}}
		defer j.Close()
		if _, err := j.Write(piece); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := j.Write(piece[:1]); err != io.ErrShortBuffer {
			t.Errorf("after an error: %v", err)
		}
	})
}

// A timer may run out while its piece is sent and the next one is held: then
// it sends that one, whose own timer runs on, and is set once more.
func TestJoinerLateTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		piece := make([]byte, libraryBuffer)
		w := &writes{}
		j := &joiner{Conn: w}
		for range 3 {
			if _, err := j.Write(piece); err != nil {
				t.Fatal(err)
			}
			j.wg.Add(1) // as for the timer of an earlier piece
			j.expire()
		}
		if got, want := w.sizes(), []int{libraryBuffer, libraryBuffer, libraryBuffer}; !slices.Equal(got, want) {
			t.Errorf("writes of %v, want %v", got, want)
		}
		if err := j.Close(); err != nil { // it waits for what has been started, and no more
			t.Error(err)
		}
	})
}

// Writes that come just when the timer runs out lose nothing, and Close ends.
func TestJoinerRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			w := &writes{}
			j := &joiner{Conn: w}
			text := noise(256<<10, 14)
			sent := 0
			for range random.IntN(10) {
				n := []int{libraryBuffer, libraryBuffer, 10, 20 << 10}[random.IntN(4)]
				if _, err := j.Write(text[sent : sent+n]); err != nil {
					t.Fatal(err)
				}
				sent += n
				if random.IntN(2) == 0 {
					time.Sleep(joinWait)
				}
			}
			if random.IntN(2) == 0 {
				time.Sleep(2 * joinWait)
				same(t, "the bytes", w.all(), text[:sent])
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// BenchmarkStreams compares, in alternation, what the server process spends on
// streams to OpenSSH's clients, with and without what is done to make them
// cheaper. It prints CPU seconds per GiB, in parentheses as a part of the first
// column, which is what the libraries do by themselves.
//
//	go test ./internal/sshd -run '^$' -bench Streams -benchtime 1x
func BenchmarkStreams(b *testing.B) {
	const size, rounds = 256 << 20, 5
	bench := newBench(b, nil)
	file := bench.put("big", make([]byte, size), 0o600)
	plain := func(nc net.Conn) net.Conn { return nc }
	joined := func(nc net.Conn) net.Conn { return &joiner{Conn: nc} }
	bare := func(ch ssh.Channel) error {
		server, err := sftp.NewServer(ch, sftp.WithAllocator(), sftp.WithMaxTxPacket(255<<10))
		if err != nil {
			return err
		}
		return server.Serve()
	}
	filtered := func(ch ssh.Channel) error { return sftpd.Serve(ch, sftpd.Options{Dir: bench.dir}) }
	type variant struct {
		name string
		wrap func(net.Conn) net.Conn
		sftp func(ssh.Channel) error
	}
	variants := []variant{{"library", plain, bare}, {"joined", joined, bare}, {"joined, filter", joined, filtered}}
	for work, run := range map[string]func() *exec.Cmd{
		"exec, output": func() *exec.Cmd {
			return bench.client("ssh", nil, testUser+"@127.0.0.1", "zeros")
		},
		"sftp get": func() *exec.Cmd {
			batch := bench.write("get", []byte("get "+file+" /dev/null\n"))
			return bench.client("sftp", nil, "-b", batch, testUser+"@127.0.0.1")
		},
		"sftp put": func() *exec.Cmd {
			batch := bench.write("put", []byte("put "+file+" "+filepath.Join(bench.dir, "copy")+"\n"))
			return bench.client("sftp", nil, "-b", batch, testUser+"@127.0.0.1")
		},
	} {
		b.Run(work, func(b *testing.B) {
			for b.Loop() {
				spent := make([][]float64, len(variants))
				for range rounds {
					for i, v := range variants {
						spent[i] = append(spent[i], stream(b, bench, run, size, v.wrap, v.sftp))
					}
				}
				var line strings.Builder
				for i, v := range variants {
					fmt.Fprintf(&line, "  %s %.2f (%.2f)", v.name, median(spent[i]), median(spent[i])/median(spent[0]))
				}
				b.Log("CPU s/GiB:" + line.String())
			}
		})
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// stream serves one client and returns the CPU seconds per GiB of this process.
func stream(b *testing.B, bench *bench, client func() *exec.Cmd, size int, wrap func(net.Conn) net.Conn, serveSFTP func(ssh.Channel) error) float64 {
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listen.Close()
	_, bench.port, _ = net.SplitHostPort(listen.Addr().String())
	bench.write("known_hosts", fmt.Appendf(nil, "[127.0.0.1]:%s %s\n", bench.port, authorizedLine(bench.host.PublicKey())))
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	cfg.Ciphers = gcm
	cfg.AddHostKey(bench.host)
	var served sync.WaitGroup
	served.Go(func() {
		nc, err := listen.Accept()
		if err != nil {
			return
		}
		nc = wrap(nc)
		_, channels, requests, err := ssh.NewServerConn(nc, cfg)
		if err != nil {
			b.Error(err)
			return
		}
		served.Go(func() { ssh.DiscardRequests(requests) })
		for c := range channels {
			served.Go(func() { streamSession(b, c, size, serveSFTP) })
		}
	})
	cmd := client()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = null, &errs
	before := cpuTime(b)
	if err := cmd.Run(); err != nil {
		b.Fatalf("%v %s", err, errs.String())
	}
	served.Wait()
	return (cpuTime(b) - before).Seconds() * (1 << 30) / float64(size)
}

// streamSession serves sftp, or zeros to whatever else is asked for.
func streamSession(b *testing.B, c ssh.NewChannel, size int, serveSFTP func(ssh.Channel) error) {
	ch, requests, err := c.Accept()
	if err != nil {
		b.Error(err)
		return
	}
	defer ch.Close()
	for req := range requests {
		_ = req.Reply(req.Type == "exec" || req.Type == "subsystem", nil)
		switch req.Type {
		case "exec":
			piece := make([]byte, 32<<10)
			for range size / len(piece) {
				if _, err := ch.Write(piece); err != nil {
					b.Error(err)
					return
				}
			}
		case "subsystem":
			if err := serveSFTP(ch); err != nil {
				b.Error(err)
			}
		default:
			continue
		}
		_, _ = ch.SendRequest("exit-status", false, make([]byte, 4))
		return
	}
}

// cpuTime is what this process has spent.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
