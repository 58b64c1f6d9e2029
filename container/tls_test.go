package container

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/pkg/certtest"
)

// TestDockerVariables: the variables by which the docker command reaches an engine
// lead this package to the same one, with TLS in both directions.
func TestDockerVariables(t *testing.T) {
	pair, err := certtest.New(1)
	if err != nil {
		t.Fatal(err)
	}
	served, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) != 1 {
			t.Errorf("the engine saw %d certificates", len(r.TLS.PeerCertificates))
		}
		w.Header().Set("Api-Version", "1.41")
		if strings.HasSuffix(r.URL.Path, "/containers/json") {
			_, _ = w.Write([]byte("[]"))
		}
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{served}, ClientCAs: pair.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	host := strings.Replace(s.URL, "https:", "tcp:", 1)

	home := t.TempDir()
	files := filepath.Join(home, ".docker")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := pair.Write(filepath.Join(files, "cert.pem"), filepath.Join(files, "key.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "ca.pem"), pair.Cert, 0o600); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()

	for name, c := range map[string]struct {
		host, path, verify string
		connection         ConnectionConfig
		want               string // of the error
	}{
		"files named":         {host: host, path: files},
		"files named, to see": {host: host, path: files, verify: "1"},
		"files at home":       {host: host, verify: "1"},
		"no TLS":              {host: host, want: "an HTTP request to an HTTPS server"},
		"files missing":       {host: host, path: other, verify: "1", want: "read TLS for the engine"},
		"files of one's own": {host: host, path: other, verify: "1",
			connection: ConnectionConfig{CACert: string(pair.Cert), Cert: string(pair.Cert), Key: string(pair.Key)}},
		"host of one's own": {host: "tcp://[::1]:1", path: files, connection: ConnectionConfig{Host: host}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HOME", home)
			t.Setenv("USERPROFILE", home)
			t.Setenv("DOCKER_HOST", c.host)
			t.Setenv("DOCKER_CERT_PATH", c.path)
			t.Setenv("DOCKER_TLS_VERIFY", c.verify)
			cfg := Config{Connection: c.connection, Execution: ExecutionConfig{Image: "x"}}
			invalid := cfg.Validate()
			client, err := cfg.engine(nil, nil)
			if (invalid == nil) != (err == nil) {
				t.Errorf("valid: %v, used: %v", invalid, err)
			}
			if err == nil {
				defer client.Close()
				_, err = client.List(t.Context(), true)
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}

	// The files say nothing of a socket.
	t.Setenv("DOCKER_HOST", "unix:///var/run/docker.sock")
	t.Setenv("DOCKER_CERT_PATH", other)
	cfg := Config{Execution: ExecutionConfig{Image: "x"}}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
