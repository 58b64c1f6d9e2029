//go:build unix

package web

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nginxConfig is a sub-path location as an operator would write it, on a
// listener that nginx is handed, with all of nginx's files in one folder. (With
// master_process off, nginx 1.22 crashes on an inherited listener.)
const nginxConfig = `
daemon off;
user root;
worker_processes 1;
pid %[1]s/pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    server {
        listen %[2]s;
        location /converge/ {
            proxy_pass %[3]s/;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Prefix /converge;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
    }
}
`

// startNginx starts a real nginx in front of backend and returns its URL. The
// listener is made here and inherited, as in an upgrade of nginx itself: no
// port can be lost to somebody else, and a connection waits until nginx is up.
func startNginx(t *testing.T, backend string) string {
	t.Helper()
	program := "/usr/sbin/nginx"
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("nginx"); err != nil {
			t.Fatal("this test needs nginx; install it (on Debian: apt-get install nginx)")
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nginx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	config := filepath.Join(dir, "nginx.conf")
	writeFile(t, config, fmt.Sprintf(nginxConfig, dir, addr, backend))

	var stderr bytes.Buffer
	cmd := exec.Command(program, "-p", dir, "-e", "stderr", "-c", config)
	cmd.Env = append(os.Environ(), "NGINX=3;")
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// From here on the listener is nginx's alone: if it dies, connections fail.
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("nginx ended: %v\n%s", err, stderr.String())
		}
	})
	return "http://" + addr
}

func TestBehindNginx(t *testing.T) {
	dir := makeFolder(t, programs)
	trusted := newOrigins(t, "", "127.0.0.1")
	home := newHandler(t, Config{Downloads: dir, Origins: trusted})
	own := newHandler(t, Config{Downloads: dir, Origins: trusted, Static: makeFolder(t, site)})
	clients := make(chan netip.Addr, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The second site stands for a second server with --static.
		switch {
		case r.URL.Path == "/client-ip":
			clients <- trusted.ClientIP(r)
		case r.Header.Get("X-Test-Static") != "":
			own.ServeHTTP(w, r)
		default:
			home.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(backend.Close)
	nginx := startNginx(t, backend.URL)
	addr := strings.TrimPrefix(nginx, "http://")

	client := &http.Client{
		Timeout:       time.Minute, // against a hang only
		Transport:     &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(client.CloseIdleConnections)
	get := func(t *testing.T, target string, header ...string) *http.Response {
		t.Helper()
		r, err := http.NewRequest("GET", target, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}

	t.Run("page", func(t *testing.T) {
		res := get(t, nginx+"/converge/", "X-Forwarded-Prefix", "/forged", "X-Forwarded-Host", "evil.example")
		page := body(t, res)
		lines := commands(page)
		if !strings.HasPrefix(lines["job"], "curl https://"+addr+"/converge/docs/agent > agent\n") ||
			!strings.Contains(lines["ssh-wsproxy"], `"wsproxy wss://`+addr+`/converge/client/`) {
			t.Errorf("the lines do not lead through nginx:\n%s%s", lines["job"], lines["ssh-wsproxy"])
		}
		base, err := url.Parse(nginx + "/converge/")
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, m := range regexp.MustCompile(`(?:href|src)="([^"#][^"]*)"`).FindAllStringSubmatch(page, -1) {
			link, err := base.Parse(html.UnescapeString(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			res := get(t, link.String())
			if text := body(t, res); res.StatusCode != 200 || text == "" || !strings.HasPrefix(link.Path, "/converge/") {
				t.Errorf("%s: status %d", link, res.StatusCode)
			}
			seen++
		}
		if seen < 8 { // style sheet, icons, SHA256SUMS and the five programs
			t.Errorf("only %d links were found on the page", seen)
		}
	})
	t.Run("downloads", func(t *testing.T) {
		res := get(t, nginx+"/converge/docs/wsproxy?os=windows&arch=amd64")
		want := programs["wsproxy-windows-amd64.exe"]
		if body(t, res) != want || res.ContentLength != int64(len(want)) || res.Header.Get("ETag") != etag(sumOf(want)) {
			t.Errorf("status %d, header %v", res.StatusCode, res.Header)
		}
		if res := get(t, nginx+"/converge/docs/wsproxy?os=windows", "Range", "bytes=7-10"); res.StatusCode != 206 || body(t, res) != ".exe" {
			t.Errorf("range: status %d", res.StatusCode)
		}
		if res := get(t, nginx+"/converge/docs/agent", "If-None-Match", etag(sumOf(programs["agent-linux-amd64"]))); res.StatusCode != 304 || body(t, res) != "" {
			t.Errorf("revalidation: status %d", res.StatusCode)
		}
		wantText(t, get(t, nginx+"/converge/docs/tcptows"), 404)
		wantText(t, get(t, nginx+"/converge/docs/agent?os=beos"), 400)
		wantText(t, get(t, nginx+"/converge/docs/"), 404)
	})
	t.Run("static", func(t *testing.T) {
		want := strings.NewReplacer("@secure@", "s", "@host@", addr+"/converge").Replace(site["index.html"])
		if got := body(t, get(t, nginx+"/converge/", "X-Test-Static", "1")); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := body(t, get(t, nginx+"/converge/docs/guide.html", "X-Test-Static", "1")); got != site["docs/guide.html"] {
			t.Errorf("file: %q", got)
		}
		if res := get(t, nginx+"/converge/%2e%2e/%2e%2e/etc/passwd", "X-Test-Static", "1"); res.StatusCode < 400 || strings.Contains(body(t, res), "root:") {
			t.Errorf("outside: status %d", res.StatusCode)
		}
	})
	t.Run("client address", func(t *testing.T) {
		if err := get(t, nginx+"/converge/client-ip", "X-Forwarded-For", "203.0.113.9").Body.Close(); err != nil {
			t.Fatal(err)
		}
		// The peer of nginx is 127.0.0.1 too, and so as trusted as nginx.
		if got := (<-clients).String(); got != "203.0.113.9" {
			t.Errorf("got %s", got)
		}
	})
}
