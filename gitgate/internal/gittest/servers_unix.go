//go:build unix

package gittest

import (
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/converge/pkg/certtest"
)

// patience bounds every wait for an event; it decides no test that is right.
const patience = 2 * time.Minute

// SSH is an OpenSSH server on loopback.
type SSH struct {
	// Address is its HOST:PORT, and KnownHosts a file with its key.
	Address, KnownHosts string
	dir, user           string
}

// NewSSH starts one, that lets in who has a key of NewKey's. It ends with the
// test.
func NewSSH(t testing.TB) *SSH {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &SSH{dir: dir, user: me.Username, KnownHosts: filepath.Join(dir, "known_hosts")}
	_ = os.MkdirAll("/run/sshd", 0o755) // as root sshd wants it
	keygen(t, filepath.Join(dir, "host"), "")
	write(t, filepath.Join(dir, "authorized"), "")
	write(t, filepath.Join(dir, "config"), strings.Join([]string{
		"HostKey " + filepath.Join(dir, "host"), "AuthorizedKeysFile " + filepath.Join(dir, "authorized"), "StrictModes no",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no", "PermitRootLogin yes", "PidFile none", "LogLevel ERROR", "PrintMotd no", "",
	}, "\n"))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Address = listener.Addr().String()
	host, port, _ := net.SplitHostPort(s.Address)
	write(t, s.KnownHosts, fmt.Sprintf("[%s]:%s %s", host, port, Read(dir, "host.pub")))
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f, err := conn.(*net.TCPConn).File()
			_ = conn.Close()
			if err != nil {
				continue
			}
			wait.Go(func() {
				defer f.Close()
				cmd := exec.Command("/usr/sbin/sshd", "-i", "-e", "-f", filepath.Join(dir, "config"))
				cmd.Stdin, cmd.Stdout = f, f
				_ = cmd.Run()
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wait.Wait()
	})
	return s
}

// URL is that of a folder of this machine.
func (s *SSH) URL(path string) string { return "ssh://" + s.user + "@" + s.Address + path }

// NewKey makes a private key that is let in, and that a passphrase opens if there
// is one.
func (s *SSH) NewKey(t testing.TB, phrase string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	keygen(t, name, phrase)
	f, err := os.OpenFile(filepath.Join(s.dir, "authorized"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(Read(name + ".pub")); err != nil {
		t.Fatal(err)
	}
	return name
}

func keygen(t testing.TB, name, phrase string) {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-f", name).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// NewHTTP serves the repositories below a folder by git's own program for that,
// behind nginx, and returns the URL that stands for the folder. Where there is a
// user, it wants that user's password.
func NewHTTP(t testing.TB, root, user, password string) string {
	t.Helper()
	return "http://" + serve(t, t.TempDir(), root, user, password, "")
}

// NewHTTPS is NewHTTP with a certificate of an authority that nobody knows, which
// is in the file that it returns.
func NewHTTPS(t testing.TB, root, user, password string) (url, caFile string) {
	t.Helper()
	dir := t.TempDir()
	pair, err := certtest.New(1)
	if err != nil {
		t.Fatal(err)
	}
	caFile, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	if err := pair.Write(caFile, key); err != nil {
		t.Fatal(err)
	}
	return "https://" + serve(t, dir, root, user, password, " ssl; ssl_certificate "+caFile+"; ssl_certificate_key "+key), caFile
}

// serve serves root with nginx, whose files are in dir, and returns the address.
// more is what follows the address in nginx's configuration.
func serve(t testing.TB, dir, root, user, password, more string) string {
	t.Helper()
	socket := filepath.Join(dir, "cgi")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	core, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(core)), "git-http-backend"),
		Env:  append(Env(), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1"),
	}
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); user != "" && (u != user || p != password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	})}
	var wait sync.WaitGroup
	wait.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		_ = server.Close()
		wait.Wait()
	})
	address := FreeAddress(t)
	config := filepath.Join(dir, "nginx.conf")
	write(t, config, fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr error;
events {}
http {
	access_log off; client_max_body_size 0;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server { listen %[2]s%[4]s; location / { proxy_pass http://unix:%[3]s; proxy_http_version 1.1; proxy_set_header Host $http_host; } }
}
`, dir, address, socket, more))
	cmd := exec.Command("nginx", "-e", "stderr", "-c", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(patience); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not answer: %v", err)
		}
	}
	return address
}

// FreeAddress is a HOST:PORT of loopback that nobody has at this moment.
func FreeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
