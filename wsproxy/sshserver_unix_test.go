//go:build unix

package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/pin"
)

// sshServer is a websocket server with an SSH server behind /client/, which lets
// everybody in and knows commands and sftp. It knows nothing of resumption, so
// that ssh's own check of the host key is what counts.
type sshServer struct {
	http    *httptest.Server
	serving sync.WaitGroup

	mu     sync.Mutex
	key    ssh.Signer
	visits []visit
}

// visit is who came, and how.
type visit struct {
	path, user string
	header     http.Header
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newSSHServer(t *testing.T) *sshServer {
	t.Helper()
	s := &sshServer{key: newSigner(t)}
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, header := r.URL.Path, r.Header.Clone()
		peer, err := frame.Accept(w, r, "")
		if err != nil {
			return
		}
		s.serving.Go(func() {
			s.serve(frame.Server(peer.Conn, io.MultiReader(bytes.NewReader(peer.Early), peer.Conn), frame.Options{}), visit{path: path, header: header})
		})
	}))
	t.Cleanup(func() {
		s.http.Close()
		s.serving.Wait()
	})
	return s
}

// url is that of an id, pinned with the server's present key.
func (s *sshServer) url(id string) string {
	return s.bare(id) + "#" + pin.Of(s.signer().PublicKey()).String()
}

func (s *sshServer) bare(id string) string { return s.ws() + "/client/" + id }
func (s *sshServer) ws() string            { return "ws" + strings.TrimPrefix(s.http.URL, "http") }

func (s *sshServer) signer() ssh.Signer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key
}

// swap gives the server another key.
func (s *sshServer) swap(t *testing.T) {
	key := newSigner(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = key
}

// last is who logged in last.
func (s *sshServer) last(t *testing.T) visit {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.visits) == 0 {
		t.Fatal("nobody has logged in")
	}
	return s.visits[len(s.visits)-1]
}

func (s *sshServer) serve(nc net.Conn, v visit) {
	defer nc.Close()
	cfg := &ssh.ServerConfig{NoClientAuth: true}
	cfg.AddHostKey(s.signer())
	conn, channels, requests, err := ssh.NewServerConn(nc, cfg)
	if err != nil {
		return
	}
	defer conn.Close()
	v.user = conn.User()
	s.mu.Lock()
	s.visits = append(s.visits, v)
	s.mu.Unlock()
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { ssh.DiscardRequests(requests) })
	for offered := range channels {
		ch, requests, err := offered.Accept()
		if err != nil {
			return
		}
		parts.Go(func() { session(ch, requests) })
	}
}

// session runs one command.
func session(ch ssh.Channel, requests <-chan *ssh.Request) {
	var running sync.WaitGroup
	defer running.Wait()
	for r := range requests {
		var command struct{ Line string }
		_ = ssh.Unmarshal(r.Payload, &command)
		var cmd *exec.Cmd
		switch {
		case r.Type == "exec":
			cmd = exec.Command("sh", "-c", command.Line)
		case r.Type == "subsystem" && command.Line == "sftp":
			cmd = exec.Command("/usr/lib/openssh/sftp-server")
		}
		if r.WantReply {
			_ = r.Reply(cmd != nil, nil)
		}
		if cmd == nil {
			continue
		}
		running.Go(func() {
			defer ch.Close()
			cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
			in, err := cmd.StdinPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				fmt.Fprintln(ch.Stderr(), err)
				return
			}
			running.Go(func() { // ends with the channel
				_, _ = io.Copy(in, ch)
				_ = in.Close()
			})
			status := uint32(0)
			var exit *exec.ExitError
			if err := cmd.Wait(); errors.As(err, &exit) {
				status = uint32(exit.ExitCode())
			}
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
		})
	}
}

// result is what became of a command.
type result struct {
	stdout, stderr string
	code           int
}

// user is somebody with folders of his own.
type user struct {
	t         *testing.T
	home, tmp string
	env       []string
}

func newUser(t *testing.T) *user {
	t.Helper()
	u := &user{t: t, home: t.TempDir(), tmp: t.TempDir()}
	u.env = append(os.Environ(), "HOME="+u.home, "XDG_CONFIG_HOME="+u.home+"/xdg", "TMPDIR="+u.tmp, "SHELL=/bin/sh", "LC_ALL=C")
	return u
}

// run runs a line, and checks that it leaves no temporary file.
func (u *user) run(line string) result {
	u.t.Helper()
	cmd := exec.CommandContext(u.t.Context(), "sh", "-c", line)
	cmd.Env, cmd.Dir = u.env, u.home
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		u.t.Fatal(err)
	}
	if left, err := os.ReadDir(u.tmp); err != nil || len(left) > 0 {
		u.t.Errorf("%s\nleft behind: %v, %v", line, left, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// does runs a line that must go well, and returns its output.
func (u *user) does(line string) string {
	u.t.Helper()
	r := u.run(line)
	if r.code != 0 {
		u.t.Fatalf("%s\nended with %d\n%s%s", line, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// fails runs a line that must fail with a code and a sentence.
func (u *user) fails(line string, code int, sentence string) {
	u.t.Helper()
	r := u.run(line)
	if r.code != code || !strings.Contains(r.stderr, sentence) {
		u.t.Errorf("%s\nended with %d, want %d and %q\n%s%s", line, r.code, code, sentence, r.stdout, r.stderr)
	}
}
