//go:build unix

package container_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/registry"

	"example.com/converge/container"
	"example.com/converge/container/enginetest"
)

// fails begins a connection that must fail with these words.
func fails(t *testing.T, cfg container.Config, words string) {
	t.Helper()
	h, err := container.New(client, "c", cfg, logger(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.OnDisconnect()
	_, err = h.OnHandshakeSuccess("user")
	var failure *container.Error
	if !errors.As(err, &failure) || !strings.Contains(err.Error(), words) {
		t.Fatalf("error %v, want one with %q", err, words)
	}
	if failure.UserMessage() != "Failed to initialize SSH session." {
		t.Errorf("the user is told %q", failure.UserMessage())
	}
}

// on makes a fault of requests with these words; n counts them from 1.
func on(words string, fault func(n int64, w http.ResponseWriter, r *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.Method+" "+r.URL.Path, words) && fault(n.Add(1), w, r)
	}
}

func TestPermanentErrorsFailAtOnce(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 409} {
		e, w := fake(t)
		e.Fault = on("containers/create", func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
			enginetest.Say(w, status, "the words of the engine")
			return true
		})
		e.Start()
		fails(t, w.config("shell"), "the words of the engine")
		if n := e.Requests("containers/create"); n != 1 {
			t.Errorf("status %d: asked %d times", status, n)
		}
	}
	// A server's own trouble is believed after some tries, not after a minute.
	e, w := fake(t)
	e.Fault = on("/start", func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
		enginetest.Say(w, 500, "no space left on device")
		return true
	})
	e.Start()
	fails(t, w.config("shell"), "no space left on device")
	if n := e.Requests("/start"); n < 2 || n > 5 {
		t.Errorf("asked %d times", n)
	}
}

func TestNoImage(t *testing.T) {
	e, w := fake(t)
	e.Registry = map[string]enginetest.Image{"far": {}, "registry:5000/far": {}}
	e.Start()
	fails(t, w.config("missing"), "No such image: missing")
	cfg := w.config("missing")
	cfg.Execution.ImagePullPolicy = ""
	fails(t, cfg, "pull access denied for missing")
	if n := e.Requests("images/create"); n != 1 {
		t.Errorf("pulled %d times", n)
	}
	cfg = w.config("registry:5000/far")
	cfg.Execution.ImagePullPolicy = ""
	cfg.Execution.Auth = &registry.AuthConfig{Username: "u", Password: "p"}
	connect(t, cfg)
	connect(t, cfg) // it is there now
	pulled := e.Pulled()[1:]
	if len(pulled) != 1 || !strings.HasPrefix(pulled[0], "registry:5000/far latest ") {
		t.Fatalf("pulled %q", pulled)
	}
	text, err := base64.URLEncoding.DecodeString(strings.Fields(pulled[0])[2])
	if err != nil || !strings.Contains(string(text), `"username":"u","password":"p"`) {
		t.Errorf("sent %s, %v", text, err)
	}
	cfg = w.config("far")
	cfg.Execution.ImagePullPolicy = container.PullAlways
	connect(t, cfg)
	connect(t, cfg)
	if n := len(e.Pulled()); n != 4 {
		t.Errorf("pulled %d times, want 4", n)
	}
}

func TestTransientErrorsAreTriedAgain(t *testing.T) {
	for name, fault := range map[string]func(w http.ResponseWriter){
		"503":     func(w http.ResponseWriter) { enginetest.Say(w, 503, "busy") },
		"500":     func(w http.ResponseWriter) { enginetest.Say(w, 500, "trouble") },
		"dropped": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			e, w := fake(t)
			e.Fault = on("/start", func(n int64, w http.ResponseWriter, r *http.Request) bool {
				if n > 2 || strings.Contains(r.URL.Path, "/exec/") {
					return false
				}
				fault(w)
				return true
			})
			e.Start()
			_, c := connect(t, w.config("shell"))
			session(t, c).exec("echo works").ends(0, "works\n", "")
		})
	}
}

// A request that is not answered is made again.
func TestSilentEngine(t *testing.T) {
	e, w := fake(t)
	e.Fault = on("/json", func(n int64, _ http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			<-r.Context().Done()
		}
		return n == 1
	})
	e.Start()
	cfg := w.config("shell")
	cfg.Timeouts.HTTP = container.Duration(500 * time.Millisecond)
	_, c := connect(t, cfg)
	session(t, c).exec("echo works").ends(0, "works\n", "")
}

// An answer that was lost does not make a second container.
func TestLostAnswer(t *testing.T) {
	e, w := fake(t)
	serving := false
	e.Fault = func(_ http.ResponseWriter, r *http.Request) bool {
		if serving || !strings.HasSuffix(r.URL.Path, "containers/create") {
			return false
		}
		serving = true
		e.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	e.Start()
	_, c := connect(t, w.config("shell"))
	session(t, c).exec("echo works").ends(0, "works\n", "")
	if n := len(e.Containers()); n != 1 {
		t.Errorf("%d containers", n)
	}
}

// What the engine does not want to tell does not hang the session.
func TestStatusIsRefused(t *testing.T) {
	e, w := fake(t)
	e.Fault = on("GET /v1.41/exec/", func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
		enginetest.Say(w, http.StatusForbidden, "not for you")
		return true
	})
	e.Start()
	_, c := connect(t, w.config("shell"))
	r := session(t, c).exec("echo out")
	if got := r.wait(); got != container.StatusUnknown || r.out.String() != "out\n" || !strings.Contains(r.errs.String(), "not known") {
		t.Errorf("status %d, output %q, errors %q", got, r.out, r.errs)
	}
}

// The status is asked for when the output has ended, and then at once: one
// question, and no waiting for the next of a row.
func TestStatusAtOnce(t *testing.T) {
	e, w := fake(t)
	e.Start()
	_, c := connect(t, w.config("shell"))
	session(t, c).exec("exit 3").ends(3, "", "")
	if n := e.Requests("GET /v1.41/exec/"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestEngineIsLostAndComesBack(t *testing.T) {
	e, w := fake(t)
	e.Start()
	_, c := connect(t, w.config("shell"))
	r := session(t, c).exec("echo ready; cat; exit 7")
	r.out.Expect(t, "ready")
	e.Stop()
	e.Start()
	// With its connection cut the program has come to the end of its input.
	r.ends(7, "ready\n", "")
	session(t, c).exec("echo works").ends(0, "works\n", "")
}

func TestEngineIsLost(t *testing.T) {
	e, w := fake(t)
	e.Start()
	cfg := w.config("shell")
	cfg.Timeouts.CommandStart = container.Duration(200 * time.Millisecond)
	cfg.Timeouts.ContainerStop = cfg.Timeouts.CommandStart
	cfg.Timeouts.Signal = cfg.Timeouts.CommandStart
	h, c := connect(t, cfg)
	r := session(t, c).exec("echo ready; cat")
	r.out.Expect(t, "ready")
	e.Stop()
	if got := r.wait(); got != container.StatusUnknown {
		t.Errorf("status %d", got)
	}
	if err := session(t, c).OnExecRequest(1, "true", strings.NewReader(""), io.Discard, io.Discard, nil); err == nil {
		t.Error("a program was started")
	}
	h.OnDisconnect() // returns, and leaves what it cannot remove
	e.Start()
	e.Kill(c.ContainerID())
}

// A connection that ends while its container is made leaves none.
func TestGoneAtStart(t *testing.T) {
	e, w := fake(t)
	at := make(chan struct{})
	e.Fault = on("/start", func(_ int64, _ http.ResponseWriter, r *http.Request) bool {
		close(at)
		<-r.Context().Done()
		return true
	})
	e.Start()
	h, err := container.New(client, "c", w.config("shell"), logger(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan error, 1)
	go func() {
		_, err := h.OnHandshakeSuccess("user")
		begun <- err
	}()
	<-at
	h.OnDisconnect()
	if err := <-begun; err == nil {
		t.Error("the connection began")
	}
	w.none(t)
	if _, err := h.OnHandshakeSuccess("user"); !errors.Is(err, container.ErrClosed) {
		t.Errorf("error %v", err)
	}
}

// Output that is no such ends the program, and the session.
func TestMalformedOutput(t *testing.T) {
	e, w := fake(t)
	e.Start()
	_, c := connect(t, w.config("shell"))
	e.Garbage = true
	in, wr := io.Pipe()
	r := session(t, c)
	r.in = wr
	// The words in place of the process id, or of a frame, are an error at once.
	if err := r.OnExecRequest(1, "echo out; exec sleep 1000", in, r.out, r.errs, r.exit); err == nil {
		r.wait()
	}
}

// Somebody else removes the container.
func TestContainerIsRemoved(t *testing.T) {
	e, w := fake(t)
	e.Start()
	_, c := connect(t, w.config("shell"))
	r := session(t, c).exec("echo ready; sleep 1000")
	r.out.Expect(t, "ready")
	e.Kill(c.ContainerID())
	if got := r.wait(); got != container.StatusUnknown {
		t.Errorf("status %d", got)
	}
}

func TestWhatIsAskedFor(t *testing.T) {
	e, w := fake(t)
	e.Start()
	var requests, failures container.Count
	cfg := w.config("shell")
	cfg.Execution.Host.AutoRemove = true
	cfg.Execution.Container.Labels = map[string]string{"mine": "yes"}
	h, err := container.New(client, "connection-1", cfg, nil, &requests, &failures)
	if err != nil {
		t.Fatal(err)
	}
	defer h.OnDisconnect()
	if _, err := h.OnHandshakeSuccess("somebody"); err != nil {
		t.Fatal(err)
	}
	if requests.Value() < 4 || failures.Value() != 0 {
		t.Errorf("%d requests, %d failures", requests.Value(), failures.Value())
	}
	made := e.Created()[0]
	for name, want := range map[string]string{
		container.LabelConnection: "connection-1", container.LabelClient: "192.0.2.7:2222",
		container.LabelUser: "somebody", "mine": "yes",
	} {
		if made.Labels[name] != want {
			t.Errorf("label %s is %q", name, made.Labels[name])
		}
	}
	if made.Labels[container.LabelOwner] == "" {
		t.Error("the label of the owner is missing")
	}
	host := made.HostConfig
	if host.AutoRemove || host.PidsLimit == nil {
		t.Errorf("host settings %+v", host)
	}
	if got := strings.Join(append(made.Entrypoint, made.Cmd...), " "); !strings.HasSuffix(got, " wait-signal --signal INT --signal TERM") {
		t.Errorf("idle command %q", got)
	}
	if len(cfg.Execution.Container.Labels) != 1 {
		t.Error("the configuration was changed")
	}
}

// The agent of the image is used where none is to be copied, also at the place
// that ContainerSSH's images have, and as its own command line has it.
func TestAgentOfTheImage(t *testing.T) {
	for _, path := range []string{container.DefaultAgentPath, container.ContainerSSHAgentPath, "/opt/agent"} {
		e, w := fake(t)
		e.Paths = map[string]string{path: guestFile}
		image := "with-" + strings.ReplaceAll(path[1:], "/", "-")
		e.Images[image] = enginetest.Image{}
		e.Start()
		cfg := w.config(image)
		cfg.Execution.GuestFile = ""
		if path == "/opt/agent" {
			cfg.Execution.AgentPath = path
		}
		_, c := connect(t, cfg)
		r := session(t, c).exec("echo ready; exec sleep 1000")
		r.out.Expect(t, "ready")
		if err := r.OnSignal(1, "TERM"); err != nil {
			t.Error(err)
		}
		if r.wait(); r.ExitSignal() != "TERM" {
			t.Errorf("signal %q", r.ExitSignal())
		}
		if e.Requests("PUT ") != 0 {
			t.Error("an agent was copied")
		}
	}
	e, w := fake(t)
	e.Start()
	cfg := w.config("shell")
	cfg.Execution.GuestFile = ""
	fails(t, cfg, "no guest agent in the image")
}

func TestDisabledAgent(t *testing.T) {
	e, w := fake(t)
	e.Start()
	cfg := w.config("shell")
	cfg.Execution.GuestFile, cfg.Execution.DisableAgent = "", true
	cfg.Execution.IdleCommand = []string{"/bin/sh", "-c", "exec sleep 1000"}
	_, c := connect(t, cfg)
	session(t, c).exec("echo out; exit 4").ends(4, "out\n", "")
	r := session(t, c).exec("cat")
	if err := r.OnSignal(1, "TERM"); !errors.Is(err, container.ErrUnsupported) {
		t.Errorf("signal: %v", err)
	}
	r.ends(0, "", "")
	if _, err := c.Dial(t.Context(), "tcp", "127.0.0.1:1"); !errors.Is(err, container.ErrUnsupported) {
		t.Errorf("dial: %v", err)
	}
	if err := session(t, c).OnSubsystem(1, "sftp", nil, nil, nil, nil); !errors.Is(err, container.ErrUnsupported) {
		t.Errorf("sftp: %v", err)
	}
}

// In a hurry a program that ignores HUP is killed at once, and an engine that does
// not answer is given up.
func TestHurry(t *testing.T) {
	e, w := fake(t)
	hang := make(chan struct{})
	asked := make(chan struct{})
	var once sync.Once
	e.Fault = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodDelete {
			return false
		}
		once.Do(func() { close(asked) })
		select {
		case <-hang:
			return false
		case <-r.Context().Done():
			return true
		}
	}
	e.Start()
	h, c := connect(t, w.config("shell"))
	id := c.ContainerID()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.OnDisconnect()
	}()
	<-asked
	h.Hurry(time.Millisecond)
	<-done
	if left := e.Containers(); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
	close(hang)
	e.Kill(id)

	_, c = connect(t, w.config("shell"))
	existing := w.config("")
	existing.Execution.Existing = c.ContainerID()
	h, c = connect(t, existing)
	r := session(t, c).exec("trap '' HUP; echo ready; while :; do sleep 0.1; done")
	r.out.Expect(t, "ready")
	h.Hurry(time.Hour)
	_ = r.in.Close()
	h.OnDisconnect()
	if status := r.wait(); status != 137 {
		t.Errorf("status %d, want 137", status)
	}
}
