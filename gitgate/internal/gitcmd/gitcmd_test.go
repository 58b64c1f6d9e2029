package gitcmd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReasons(t *testing.T) {
	for said, want := range map[string]Reason{
		"fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output":                             Disk,
		"Host key verification failed.\nfatal: Could not read from remote repository.":                                          HostKey,
		"Load key \"/k\": error in libcrypto\ngit@h: Permission denied (publickey).":                                            Key,
		"git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.":                                  Auth,
		"fatal: could not read Username for 'https://h': terminal prompts disabled":                                             Auth,
		"fatal: couldn't find remote ref refs/heads/x":                                                                          NoRef,
		"remote: Repository not found.\nfatal: repository 'https://h/' not found":                                               NoRepo,
		"fatal: Unable to create '/r/.git/index.lock': File exists.":                                                            Locked,
		"error: object file .git/objects/aa/bb is empty\nfatal: loose object aabb is corrupt":                                   Damaged,
		"remote: fatal: bad object abc\nfatal: the remote end hung up unexpectedly":                                             Network,
		"ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote repository.\n\nPlease make sure": Network,
		"fatal: unable to access 'https://h/': Could not resolve host: h":                                                       Network,
		"error: unable to create file a: Permission denied":                                                                     Refused,
		"error: cannot lock ref 'refs/remotes/origin/a/b': 'refs/remotes/origin/a' exists; cannot create":                       Conflict,
		"error: unable to write file big\nfatal: write error: File too large":                                                   Disk,
		"error: index-pack died of signal 25\nfatal: fetch-pack: invalid index-pack output":                                     Disk,
		"fatal: mismatched algorithms: client sha1; server sha256":                                                              Format,
		"fatal: unable to access 'https://h/': server certificate verification failed. CAfile: none CRLfile: none":              TLS,
		"fatal: unable to access 'https://h/': SSL certificate problem: unable to get local issuer certificate":                 TLS,
		"something new": Other,
		"":              Other,
	} {
		err := explain(context.Background(), "fetch", errors.New("exit status 128"), said)
		if got := ReasonOf(err); got != want {
			t.Errorf("%q: %s, want %s", said, got, want)
		}
		if strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "git fetch: ") {
			t.Errorf("%q: %q", said, err)
		}
	}
	changed := explain(context.Background(), "fetch", errors.New("x"), "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.")
	if ReasonOf(changed) != HostKey || !strings.Contains(changed.Error(), "find out why") {
		t.Errorf("%v", changed)
	}
	hostile := explain(context.Background(), "fetch", errors.New("x"), "fatal: \x1b[2J"+strings.Repeat("a", 1000))
	if strings.ContainsRune(hostile.Error(), 0x1b) || len(hostile.Error()) > 400 {
		t.Errorf("%q", hostile)
	}
}

func newGit(t *testing.T, o Options) *Git {
	t.Helper()
	g, err := New(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	g.Timeout = time.Minute
	return g
}

// TestEnvironment: nothing that the user or the machine has set counts.
func TestEnvironment(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte("[user]\n\tname = somebody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("GIT_DIR", "/somewhere")
	t.Setenv("GIT_SSH", "/bin/false")
	t.Setenv("GIT_CONFIG_PARAMETERS", "'user.name'='somebody'")
	g := newGit(t, Options{URL: "https://h.example/a/b", User: "u", Password: "p4ss"})
	if _, err := g.Run(t.Context(), "init", "--quiet"); err != nil {
		t.Fatal(err)
	}
	if out, err := g.Run(t.Context(), "config", "user.name"); err == nil {
		t.Errorf("user.name is %q", out)
	}
	for key, want := range map[string]string{"core.hooksPath": os.DevNull, "protocol.ext.allow": "never", "safe.directory": filepath.Join(g.Dir, ".git")} {
		if out, err := g.Run(t.Context(), "config", "--get", key); err != nil || out != want {
			t.Errorf("%s is %q (%v)", key, out, err)
		}
	}
	// The password is for its host alone, and in no argument.
	for url, want := range map[string]bool{"https://h.example/a/b": true, "https://other.example/a/b": false, "http://h.example/a/b": false} {
		out, _ := g.Run(t.Context(), "config", "--get-urlmatch", "http.extraHeader", url)
		if strings.Contains(out, "Basic dTpwNHNz") != want {
			t.Errorf("%s gets %q", url, out)
		}
	}
	if _, err := g.Run(t.Context(), "ls-remote", "ext::sh -c true"); err == nil {
		t.Error("a helper program is run")
	}
}

// TestRedirect: who redirects us cannot have the password sent elsewhere, neither
// to another host nor without encryption; without a password redirects count.
func TestRedirect(t *testing.T) {
	arrived := make(chan http.Header, 10)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.Header
		if r.Method == http.MethodGet { // git sends its own request then
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = io.WriteString(w, "001e# service=git-upload-pack\n0000000eversion 2\n000cls-refs\n0000")
			return
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		_, _ = io.WriteString(w, "0000")
	}))
	defer elsewhere.Close()
	to := strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)
	redirect := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to+r.RequestURI, http.StatusFound) })
	plain, encrypted := httptest.NewServer(redirect), httptest.NewTLSServer(redirect)
	defer plain.Close()
	defer encrypted.Close()
	ca := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: encrypted.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{plain.URL, encrypted.URL} {
		for _, password := range []string{"p4ss", ""} {
			g := newGit(t, Options{URL: server + "/a/b", User: "u", Password: password, CAFile: ca})
			_, err := g.Run(t.Context(), "ls-remote", server+"/a/b")
			if password != "" && (ReasonOf(err) != Moved || !strings.Contains(err.Error(), "correct url")) || password == "" && err != nil {
				t.Errorf("%s, password %q: %v", server, password, err)
			}
			if came := len(arrived); (came > 0) != (password == "") {
				t.Errorf("%s, password %q: %d requests have arrived elsewhere", server, password, came)
			}
			for len(arrived) > 0 {
				if header := <-arrived; header.Get("Authorization") != "" {
					t.Errorf("%s: the password is sent elsewhere", server)
				}
			}
		}
	}
}

// TestOutput: what is kept of an output has a limit, and what is handed on has none.
func TestOutput(t *testing.T) {
	g := newGit(t, Options{})
	large := filepath.Join(g.Dir, "large")
	if err := errors.Join(os.WriteFile(large, nil, 0o600), os.Truncate(large, maxOutput+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Run(t.Context(), "init", "--quiet"); err != nil {
		t.Fatal(err)
	}
	id, err := g.Run(t.Context(), "hash-object", "-w", large)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := g.Run(t.Context(), "cat-file", "blob", id); err == nil {
		t.Errorf("%d bytes are kept", len(out))
	}
	var out strings.Builder
	if err := g.Stream(t.Context(), &out, "cat-file", "blob", id); err != nil || out.Len() != maxOutput+1 {
		t.Errorf("%d bytes are handed on: %v", out.Len(), err)
	}
}

// TestTimeout ends git and what it has started.
func TestTimeout(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ended := make(chan struct{})
	go func() { // a server that says nothing
		defer close(ended)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buffer := make([]byte, 1024)
		for {
			if _, err := conn.Read(buffer); err != nil {
				return // git-remote-http is gone
			}
		}
	}()
	g := newGit(t, Options{})
	g.Timeout = 500 * time.Millisecond
	_, err = g.Run(t.Context(), "ls-remote", "http://"+listener.Addr().String()+"/a")
	if ReasonOf(err) != Timeout {
		t.Errorf("%v", err)
	}
	_ = listener.Close() // a slow machine's git may not have come so far
	<-ended
	g.Timeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Run(ctx, "version"); ReasonOf(err) != Ended {
		t.Errorf("%v", err)
	}
}

func TestVersion(t *testing.T) {
	if v, err := Version(t.Context()); err != nil || !strings.HasPrefix(v, "2.") {
		t.Errorf("%q, %v", v, err)
	}
}

// writeKey writes a private key that a passphrase opens, if there is one.
func writeKey(t *testing.T, phrase string) (string, ssh.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if phrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(phrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return name, key
}

// TestPassPhrase: the agent has the key, and ends with all its connections.
func TestPassPhrase(t *testing.T) {
	for _, phrase := range []string{"correct", ""} { // a passphrase too many does no harm
		name, key := writeKey(t, phrase)
		g, err := New(t.TempDir(), Options{SSHKey: name, PassPhrase: "correct"})
		if err != nil {
			t.Fatal(err)
		}
		var command string
		for _, v := range g.env {
			if c, ok := strings.CutPrefix(v, "GIT_SSH_COMMAND="); ok {
				command = c
			}
		}
		if strings.Contains(strings.Join(g.env, "\n"), "=correct") || !strings.Contains(command, "StrictHostKeyChecking=yes") {
			t.Errorf("the command is %s", command)
		}
		socket := regexp.MustCompile(`/[^"'\\ ]*/agent`).FindString(command)
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := agent.NewClient(conn).List()
		if err != nil || len(keys) != 1 || string(keys[0].Blob) != string(key.Marshal()) {
			t.Errorf("%v, %v", keys, err)
		}
		g.Close()
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket stays: %v", err)
		}
		_ = conn.Close()
	}
}

func TestBadKeys(t *testing.T) {
	name, key := writeKey(t, "correct")
	public := name + ".pub"
	if err := os.WriteFile(public, ssh.MarshalAuthorizedKey(key), 0o600); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		o    Options
		says string
	}{
		{Options{SSHKey: name, PassPhrase: "wr0ng"}, "does not open the private key"},
		{Options{SSHKey: name + ".none"}, "there is no file"},
		{Options{SSHKey: name + ".none", PassPhrase: "x"}, "there is no file"},
		{Options{SSHKey: garbage, PassPhrase: "x"}, "cannot use the private key"},
		{Options{SSHKey: garbage}, "cannot use the private key"},
		{Options{SSHKey: name}, "is encrypted: give its passphrase"},
		{Options{SSHKey: public}, "is a public key"},
		{Options{SSHKey: public, PassPhrase: "x"}, "is a public key"},
	} {
		_, err := New(t.TempDir(), test.o)
		if ReasonOf(err) != Key || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("%v", err)
		}
	}
}
