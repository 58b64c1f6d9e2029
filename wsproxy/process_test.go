//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/converge/pkg/clitest"
	"example.com/converge/pkg/frame"
)

// process is a running wsproxy, whose stdin and stdout are pipes of the test.
type process struct {
	cmd    *exec.Cmd
	stdin  *os.File
	stdout *os.File
	stderr *os.File // its end tells that every process that had it is gone
}

// start runs a program and kills it at the test's end if it still runs then.
func start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = r.Close(), w.Close() })
		return r, w
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "GORACE="+clitest.RaceOptions)
	in, stdin := pipe()
	stdout, out := pipe()
	stderr, errs := pipe()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	_, _, _ = in.Close(), out.Close(), errs.Close()
	return &process{cmd: cmd, stdin: stdin, stdout: stdout, stderr: stderr}
}

// exits checks the exit code.
func (p *process) exits(t *testing.T, code int) {
	t.Helper()
	said, _ := io.ReadAll(p.stderr)
	_ = p.cmd.Wait()
	if p.cmd.ProcessState.ExitCode() != code {
		t.Errorf("it ended with %v, want exit code %d; it said %q", p.cmd.ProcessState, code, said)
	}
	if code == 0 && len(said) > 0 {
		t.Errorf("it said %q", said)
	}
}

// connected starts wsproxy and returns the server's end of its connection too,
// when bytes have gone both ways.
func connected(t *testing.T, program string, args ...string) (*process, *frame.Conn) {
	t.Helper()
	server := newFake(false)
	t.Cleanup(server.end)
	p := start(t, program, append(args, server.url("/client/test"))...)
	conn := server.accept(t)
	write(t, p.stdin, "up")
	expect(t, conn, "up")
	write(t, conn, "down")
	expect(t, p.stdout, "down")
	return p, conn
}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatalf("writing %q: %v", text, err)
	}
}

func expect(t *testing.T, r io.Reader, text string) {
	t.Helper()
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != text {
		t.Fatalf("read %q, %v, want %q", buf, err, text)
	}
}

// expectEnd wants a close frame: a lost connection is io.ErrUnexpectedEOF.
func expectEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the server read %d, %v, want a close frame", n, err)
	}
}

func TestInputEnds(t *testing.T) {
	p, conn := connected(t, "wsproxy")
	_ = p.stdin.Close()
	expectEnd(t, conn)
	write(t, conn, "last words")
	_ = conn.Close()
	expect(t, p.stdout, "last words")
	p.exits(t, 0)
}

// TestInputEndsAndServerStays has a server that reads but never ends.
func TestInputEndsAndServerStays(t *testing.T) {
	for _, mode := range []string{"", "--raw"} {
		t.Run("mode "+mode, func(t *testing.T) {
			t.Parallel()
			var args []string
			if mode != "" {
				args = append(args, mode)
			}
			p, conn := connected(t, "wsproxy", args...)
			_ = p.stdin.Close()
			expectEnd(t, conn)
			p.exits(t, 0)
		})
	}
}

// TestServerEnds leaves stdin open.
func TestServerEnds(t *testing.T) {
	p, conn := connected(t, "wsproxy")
	write(t, conn, "last words")
	_ = conn.Close()
	expect(t, p.stdout, "last words")
	p.exits(t, 0)
}

func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT} {
		for _, mode := range []string{"--raw=false", "--raw"} {
			t.Run(sig.String()+" "+mode, func(t *testing.T) {
				p, conn := connected(t, "wsproxy", mode)
				_ = p.cmd.Process.Signal(sig)
				expectEnd(t, conn)
				_ = conn.Close()
				p.exits(t, 0)
			})
		}
	}
}

// TestSignalIgnored is nohup, and sftp, which starts ssh with SIGINT ignored so
// that Ctrl-C aborts a transfer and not the session.
func TestSignalIgnored(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) { signalIgnored(t, name, signal) })
	}
}

func signalIgnored(t *testing.T, name string, signal syscall.Signal) {
	p, conn := connected(t, "sh", "-c", `trap "" `+name+`; exec wsproxy "$1"`, "sh")
	_ = p.cmd.Process.Signal(signal)
	_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the server read %v, want no sign of the signal", err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	write(t, conn, "still here")
	expect(t, p.stdout, "still here")
	write(t, p.stdin, "here too")
	expect(t, conn, "here too")
	_ = conn.Close()
	p.exits(t, 0)
}

// TestSignalWhileStdoutIsFull has a reader of stdout that is there but stopped.
func TestSignalWhileStdoutIsFull(t *testing.T) {
	p, conn := connected(t, "wsproxy")
	fill(t, conn)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.exits(t, 0)
}

// TestSignalWhileServerIsStuck has a server that takes nothing any more.
func TestSignalWhileServerIsStuck(t *testing.T) {
	p, _ := connected(t, "wsproxy")
	fill(t, p.stdin)
	_ = p.cmd.Process.Signal(syscall.SIGHUP)
	p.exits(t, 0)
}

// fill writes until nothing more is taken, and returns how much was.
func fill(t *testing.T, w interface {
	io.Writer
	SetWriteDeadline(time.Time) error
},
) int64 {
	t.Helper()
	piece := make([]byte, 64<<10)
	var total int64
	for total < 1<<30 {
		_ = w.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := w.Write(piece)
		total += int64(n)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			_ = w.SetWriteDeadline(time.Time{})
			return total
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("a gigabyte was taken without anybody reading it")
	return 0
}

// TestParentKilled is what becomes of a wsproxy whose ssh was killed while
// somebody else, here the test, holds its stdin open.
func TestParentKilled(t *testing.T) {
	for _, mode := range []string{"--raw=false", "--raw"} {
		t.Run(mode, func(t *testing.T) {
			p, conn := connected(t, "parent", mode)
			if err := p.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			expectEnd(t, conn)
			_ = conn.Close()
			// The orphan has the other end of this pipe.
			if said, err := io.ReadAll(p.stderr); err != nil || len(said) > 0 {
				t.Errorf("it said %q, %v", said, err)
			}
		})
	}
}

// TestStdoutClosed writes to a stdout without a reader: no sudden death.
func TestStdoutClosed(t *testing.T) {
	p, conn := connected(t, "wsproxy")
	_ = p.stdout.Close()
	_, _ = io.WriteString(conn, "for nobody")
	expectEnd(t, conn)
	_ = conn.Close()
	p.exits(t, 0)
}

// mute is a server that takes connections and answers nothing.
func mute(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// TestEndsDuringHandshake does not wait for a server that does not answer.
func TestEndsDuringHandshake(t *testing.T) {
	for name, end := range map[string]func(*process){
		"SIGTERM":       func(p *process) { _ = p.cmd.Process.Signal(syscall.SIGTERM) },
		"SIGHUP":        func(p *process) { _ = p.cmd.Process.Signal(syscall.SIGHUP) },
		"stdout closed": func(p *process) { _ = p.stdout.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			listener := mute(t)
			p := start(t, "wsproxy", "ws://"+listener.Addr().String()+"/client/test")
			conn, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			end(p)
			p.exits(t, 0)
		})
	}
}

// noise returns size random bytes, and their sum.
func noise(t *testing.T, size int) ([]byte, [sha256.Size]byte) {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.Read(data)
	return data, sha256.Sum256(data)
}

func TestBigInput(t *testing.T) {
	data, sum := noise(t, 16<<20)
	server := newFake(false)
	t.Cleanup(server.end)
	p := start(t, "wsproxy", server.url("/client/test"))
	go func() {
		_, _ = p.stdin.Write(data)
		_ = p.stdin.Close()
	}()
	conn := server.accept(t)
	got, err := io.ReadAll(conn)
	if err != nil || sha256.Sum256(got) != sum {
		t.Errorf("the server got %d bytes, %v, not what was written", len(got), err)
	}
	_ = conn.Close()
	p.exits(t, 0)
}

// TestSlowReader writes what nobody reads: wsproxy must stop taking it, and
// lose nothing.
func TestSlowReader(t *testing.T) {
	for _, mode := range []string{"--raw=false", "--raw"} {
		t.Run(mode, func(t *testing.T) {
			p, conn := connected(t, "wsproxy", mode)
			total := fill(t, conn)
			data, _ := noise(t, 4<<20)
			go func() {
				_, _ = conn.Write(data)
				_ = conn.Close()
			}()
			got, err := io.ReadAll(p.stdout)
			if err != nil || int64(len(got)) != total+int64(len(data)) || !bytes.HasSuffix(got, data) {
				t.Errorf("%d bytes came, %v, not the %d that were written", len(got), err, total+int64(len(data)))
			}
			if strings.Trim(string(got[:total]), "\x00") != "" {
				t.Error("something else came")
			}
			p.exits(t, 0)
		})
	}
}
