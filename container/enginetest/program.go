//go:build unix

package enginetest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// program is a process of a container.
type program struct {
	box        *box
	id         string
	argv, env  []string
	tty        bool
	detachKeys string
	size       *[2]uint

	mu       sync.Mutex
	stdin    io.WriteCloser
	outputs  []*os.File
	terminal *os.File
	cmd      *exec.Cmd
	code     *int
	conn     net.Conn // attached
	reader   io.Reader
	drained  sync.WaitGroup
}

func newProgram(b *box, id string, argv, env []string, tty bool) *program {
	p := &program{box: b, id: id, argv: slices.Clone(argv), env: env, tty: tty}
	for i, a := range p.argv {
		p.argv[i] = b.local(a)
	}
	return p
}

func (p *program) state() (running bool, code *int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil && p.code == nil, p.code
}

// start starts the process and copies its output to the attached connection.
func (p *program) start(refused func(error)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	for i, a := range p.argv { // what has been unpacked since
		p.argv[i] = p.box.local(a)
	}
	if len(p.argv) == 0 {
		return errors.New("no command specified")
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"}, p.env...)
	cmd.Dir = "/"
	var theirs []*os.File
	if p.tty {
		master, slave, err := pty.Open()
		if err != nil {
			return err
		}
		if p.size != nil {
			_ = pty.Setsize(master, &pty.Winsize{Rows: uint16(p.size[0]), Cols: uint16(p.size[1])})
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		p.terminal, p.stdin, p.outputs, theirs = master, master, []*os.File{master}, []*os.File{slave}
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		var files [6]*os.File
		for i := range 3 {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			files[2*i], files[2*i+1] = r, w
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[3], files[5]
		p.stdin, p.outputs, theirs = files[1], []*os.File{files[2], files[4]}, []*os.File{files[0], files[3], files[5]}
	}
	err := cmd.Start()
	for _, f := range theirs {
		_ = f.Close()
	}
	if err != nil {
		for _, f := range p.outputs {
			_ = f.Close()
		}
		_ = p.stdin.Close()
		code := 127
		p.code, p.cmd = &code, cmd
		if refused != nil {
			refused(err)
			return nil
		}
		return err
	}
	p.cmd = cmd
	var write sync.Mutex
	for i, f := range p.outputs {
		p.drained.Go(func() { p.copyOut(f, byte(i+1), &write) })
	}
	if p.conn != nil {
		p.box.engine.wg.Go(p.copyIn)
	}
	p.box.engine.wg.Go(p.wait)
	return nil
}

// copyOut sends output to whoever is attached, framed if there is no terminal.
func (p *program) copyOut(f *os.File, kind byte, write *sync.Mutex) {
	buf := make([]byte, 8<<10)
	for {
		n, err := f.Read(buf)
		p.mu.Lock()
		conn := p.conn
		p.mu.Unlock()
		if n > 0 && conn != nil {
			write.Lock()
			p.send(conn, kind, buf[:n])
			write.Unlock()
		}
		if err != nil {
			return
		}
	}
}

func (p *program) send(conn net.Conn, kind byte, data []byte) {
	if p.tty || p.box.engine.Garbage {
		_, _ = conn.Write(data)
		return
	}
	chunk := len(data)
	if p.box.engine.Split {
		chunk = 3
	}
	for len(data) > 0 {
		n := min(chunk, len(data))
		frame := make([]byte, 8, 8+n)
		frame[0] = kind
		binary.BigEndian.PutUint32(frame[4:], uint32(n))
		frame = append(frame, data[:n]...)
		data = data[n:]
		if !p.box.engine.Split {
			_, _ = conn.Write(frame)
			continue
		}
		for i := range frame {
			_, _ = conn.Write(frame[i : i+1])
		}
	}
}

// copyIn gives input to the process. As engines do, it stops copying output when
// the input of a terminal ends (moby issue 38457), and detaches at the keys.
func (p *program) copyIn() {
	buf := make([]byte, 32<<10)
	for {
		n, err := p.reader.Read(buf)
		if n > 0 {
			if p.tty && p.detachKeys == "" && strings.Contains(string(buf[:n]), "\x10\x11") {
				p.cut()
				return
			}
			if _, err := p.stdin.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	if p.tty {
		p.cut()
		return
	}
	_ = p.stdin.Close()
}

// cut closes the attached connection.
func (p *program) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

func (p *program) wait() {
	_ = p.cmd.Wait()
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	p.drained.Wait()
	p.mu.Lock()
	p.code = &code
	if p.conn != nil {
		_ = p.conn.Close()
	}
	p.mu.Unlock()
	for _, f := range p.outputs {
		_ = f.Close()
	}
	_ = p.stdin.Close()
}

// attach hands the connection over, and starts an exec.
func (p *program) attach(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	p.mu.Lock()
	p.conn, p.reader = conn, rw.Reader
	p.mu.Unlock()
	_, _ = conn.Write([]byte("HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"))
	if p.id == p.box.id {
		return
	}
	_ = p.start(func(err error) {
		p.send(conn, 1, []byte("OCI runtime exec failed: "+err.Error()+"\r\n"))
		_ = conn.Close()
	})
}

func (p *program) resize(w http.ResponseWriter, r *http.Request) {
	rows, _ := strconv.Atoi(r.URL.Query().Get("h"))
	columns, _ := strconv.Atoi(r.URL.Query().Get("w"))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal == nil || p.code != nil {
		Say(w, http.StatusConflict, "%s is not running", p.id)
		return
	}
	if err := pty.Setsize(p.terminal, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)}); err != nil {
		Say(w, http.StatusInternalServerError, "%v", err)
	}
}

// signal sends a signal to the process and its group.
func (p *program) signal(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.Process == nil || p.code != nil {
		return
	}
	pid := p.cmd.Process.Pid
	if name == "SIGKILL" {
		pid = -pid
	}
	_ = syscall.Kill(pid, unix.SignalNum(name))
}
