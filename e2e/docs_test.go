package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestDocuments types the commands of every page, from the top to the bottom,
// with this machine's addresses in the place of HOST and ID.
func TestDocuments(t *testing.T) {
	for _, page := range documents(t) {
		var commands []block
		for _, b := range blocks(t, page) {
			if b.lang == "sh" && b.has("run") && b.mark == "" {
				commands = append(commands, b)
			}
		}
		if len(commands) == 0 {
			continue
		}
		t.Run(strings.ReplaceAll(page, "/", "-"), func(t *testing.T) {
			t.Parallel()
			w := newReader(t)
			for _, b := range commands {
				w.run(t, b)
			}
		})
	}
}

// reader is somebody who follows one page in a folder of their own.
type reader struct {
	dir      string
	id       identity
	agentID  string
	env      []string
	ports    map[string]string
	server   *server // once HOST was met
	pin      string  // of the agent's host key
	proxy    string  // of HTTP, once it was needed
	jobs     map[string]*process
	hasAgent bool
}

func newReader(t *testing.T) *reader {
	t.Helper()
	w := &reader{dir: t.TempDir(), id: newIdentity(t), agentID: uniqueID(), ports: map[string]string{}, jobs: map[string]*process{}}
	// What the pages take for granted: keys, and ssh that knows them.
	settings := fmt.Sprintf("BatchMode yes\nIdentityFile %s\nIdentitiesOnly yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n", w.id.file)
	w.write(t, "bin/ssh_config", settings)
	for _, name := range []string{"ssh", "scp", "sftp"} {
		program, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		w.write(t, "bin/"+name, fmt.Sprintf("#!/bin/sh\nexec %s -F %s/bin/ssh_config \"$@\"\n", program, w.dir))
	}
	w.write(t, "keys.pub", w.id.public+"\n")
	w.write(t, "etc/converge/.keep", "")
	w.write(t, "id_ed25519.pub", w.id.public+"\n")
	w.write(t, "job/report.xml", "<report/>\n")
	if err := os.Symlink(downloads(t), filepath.Join(w.dir, "bin", "downloads")); err != nil {
		t.Fatal(err)
	}
	w.env = []string{
		"HOME=" + w.dir, "PWD=" + w.dir, "PATH=" + filepath.Join(w.dir, "bin") + ":" + bin + ":" + os.Getenv("PATH"),
		// A job that waits longer than the reader, and lets nobody else in.
		"CONVERGE_AGENT_KEEP=1", "CONVERGE_AGENT_AUTHORIZED_KEY=" + w.id.public, "CONVERGE_AGENT_SHELL=/bin/bash",
		"CONVERGE_SERVER_LISTEN=127.0.0.1:0",
	}
	return w
}

// write makes a file in the reader's folder, which may be run.
func (w *reader) write(t *testing.T, name, text string) {
	t.Helper()
	name = filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

var (
	hostWord = regexp.MustCompile(`(ws|http)s?://HOST\b`)
	idWord   = regexp.MustCompile(`([/ ])ID\b`)
	portWord = regexp.MustCompile(`(127\.0\.0\.1:|[ ="]:|tcptows |-p |Port=)(8080|9000|9090|6060|443|10000)\b`)
)

// fill puts this machine's addresses into the text.
func (w *reader) fill(t *testing.T, b block, text string) string {
	t.Helper()
	if strings.Contains(text, "HOST") && w.server == nil {
		w.server = startServer(t, "--downloads", downloads(t))
	}
	host := ""
	if w.server != nil {
		host = w.server.addr
	}
	if b.args["env"] == "proxy" {
		// Programs never use a proxy for this machine's own addresses.
		_, port, _ := net.SplitHostPort(host)
		host = "converge.example.org:" + port
		text = strings.ReplaceAll(text, "proxy.example.com:3128", w.startProxy(t))
	}
	text = hostWord.ReplaceAllString(text, "$1://"+host)
	text = strings.ReplaceAll(text, "/etc/converge", filepath.Join(w.dir, "etc", "converge"))
	text = portWord.ReplaceAllStringFunc(text, func(found string) string {
		m := portWord.FindStringSubmatch(found)
		if w.ports[m[2]] == "" {
			w.ports[m[2]] = readersPort(t)
		}
		return m[1] + w.ports[m[2]]
	})
	return idWord.ReplaceAllString(text, "${1}"+w.agentID)
}

// takenPorts are those that readersPort has given away.
var takenPorts sync.Map

// readersPort finds a port that nobody listens on, below those that the kernel
// gives to outgoing connections.
func readersPort(t *testing.T) string {
	t.Helper()
	for port := 20000 + os.Getpid()%5000; port < 32000; port++ {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			_ = l.Close()
			if _, taken := takenPorts.LoadOrStore(port, true); !taken {
				return strconv.Itoa(port)
			}
		}
	}
	t.Fatal("no port is free")
	return ""
}

// run types one block.
func (w *reader) run(t *testing.T, b block) {
	t.Helper()
	text := w.fill(t, b, b.text)
	t.Logf("%v\n%s", b, text)
	startsAgent := regexp.MustCompile(`(?m)^(\./|exec )?agent\b`).MatchString(text) && b.args["in"] != "session"
	if !w.hasAgent && !startsAgent && (b.args["in"] == "session" || strings.Contains(text, "/client/"+w.agentID)) {
		if w.server == nil {
			w.server = startServer(t)
		}
		w.startAgent(t)
	}
	text = strings.ReplaceAll(text, "#PIN", w.pin)
	if strings.Contains(text, "chain.pem") {
		w.writeCertificate(t)
	}
	parts := []string{text}
	if b.has("each") {
		parts = lines(text)
	}
	for i, part := range parts {
		if !b.has("until") {
			w.finish(t, b, part)
			continue
		}
		p := w.begin(t, b, part, i)
		p.out.Await(t, regexp.QuoteMeta(b.args["until"]), 1)
		if b.has("each") {
			p.finish(t)
			continue
		}
		w.hasAgent = w.hasAgent || startsAgent
		w.jobs[b.args["as"]] = p
	}
	if name, code, ok := strings.Cut(b.args["ends"], "="); ok {
		p := w.jobs[name]
		if p == nil {
			t.Fatalf("%v: nothing is called %q", b, name)
		}
		if got := strconv.Itoa(p.wait(t)); got != code {
			t.Errorf("%v: %s ended with %s, want %s:\n%s", b, name, got, code, p.out)
		}
	}
}

// startAgent starts the agent that a page takes for granted, in a folder of the
// job.
func (w *reader) startAgent(t *testing.T) {
	t.Helper()
	command := agentCommand(w.server.ws("/agent/"+w.agentID), w.id, "--keep")
	p := start(t, append(w.env, "JOB="+filepath.Join(w.dir, "job")), "sh",
		append([]string{"-c", `cd "$JOB" && exec "$@"`, "sh"}, command...)...)
	w.pin = p.out.Await(t, `/client/`+regexp.QuoteMeta(w.agentID)+`(#[\w-]+)`, 1)[1]
	w.hasAgent = true
}

// writeCertificate makes what --tls-cert and --tls-key want.
func (w *reader) writeCertificate(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"converge.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	chain, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "chain.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain})))
	w.write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

// lines splits commands, which a backslash may continue, without comments.
func lines(text string) []string {
	var all []string
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}

// begin starts commands that go on. They have a process group of their own, so
// that all of it ends with it.
func (w *reader) begin(t *testing.T, b block, text string, part int) *process {
	t.Helper()
	name := fmt.Sprintf("bin/block-%d-%d", b.line, part)
	w.write(t, name, text)
	return start(t, append(w.env, "READER="+w.dir), "setsid", "bash", "-c",
		`cd "$READER" && trap 'trap - TERM; kill -TERM 0; wait; exit 143' TERM
		bash -euo pipefail "$1" & wait $!`, "bash", filepath.Join(w.dir, name))
}

// finish types commands that end.
func (w *reader) finish(t *testing.T, b block, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", text)
	if b.args["in"] == "session" {
		cmd = exec.CommandContext(ctx, filepath.Join(w.dir, "bin", "ssh"),
			"-oProxyCommand="+tool("wsproxy")+" "+w.server.ws("/client/"+w.agentID), "abc@localhost", "bash -euo pipefail -s")
		cmd.Stdin = strings.NewReader(text)
	}
	var out bytes.Buffer
	cmd.Dir, cmd.Env = w.dir, append(os.Environ(), w.env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	want := b.args["exits"]
	if want == "" {
		want = "0"
	}
	if cmd.ProcessState == nil || want != "any" && strconv.Itoa(cmd.ProcessState.ExitCode()) != want {
		t.Fatalf("%v: %v, want exit code %s:\n%s\n%s", b, err, want, text, &out)
	}
	if !strings.Contains(out.String(), b.args["expect"]) {
		t.Errorf("%v: %q is not in what it prints:\n%s", b, b.args["expect"], &out)
	}
}

// startProxy starts an HTTP proxy that knows CONNECT alone, and one host.
func (w *reader) startProxy(t *testing.T) string {
	t.Helper()
	if w.proxy != "" {
		return w.proxy
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || !strings.HasPrefix(r.Host, "converge.example.org:") {
			http.Error(rw, "not through here", http.StatusForbidden)
			return
		}
		out, err := net.Dial("tcp", w.server.addr)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		in, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			_ = out.Close()
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
		_, _ = io.Copy(in, out)
		_ = in.Close()
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = proxy.Serve(l) }()
	t.Cleanup(func() { _ = proxy.Close(); <-done })
	w.proxy = l.Addr().String()
	return w.proxy
}
