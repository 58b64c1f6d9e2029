package notify

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/pkg/watchtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is one that a receiver got.
type request struct {
	method, path, query string
	header              http.Header
	body                []byte
}

// object decodes the body.
func (r request) object(t *testing.T) map[string]any {
	t.Helper()
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	var o map[string]any
	if err := json.Unmarshal(r.body, &o); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	return o
}

// receiver is a service on this machine.
type receiver struct {
	*httptest.Server
	ca  string
	got chan request
}

// newReceiver answers as answer does; nil answers 200.
func newReceiver(t *testing.T, answer func(http.ResponseWriter, request)) *receiver {
	t.Helper()
	r := &receiver{got: make(chan request, 100)}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		got := request{q.Method, q.URL.EscapedPath(), q.URL.RawQuery, q.Header, body}
		r.got <- got
		if answer != nil {
			answer(w, got)
		}
	}))
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	t.Cleanup(r.Close)
	r.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// next waits for a request.
func (r *receiver) next(t *testing.T) request {
	t.Helper()
	select {
	case got := <-r.got:
		return got
	case <-time.After(time.Minute):
		t.Fatal("nothing came")
		return request{}
	}
}

// logger writes to a log to look at.
func logger(to *watchtest.Output) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

const (
	line = `wsproxy ssh 'wss://relay.example/client/acme/app/7#sz6u836i33yqAQ3v3qNOJB9l8bUppPQ-0UMn9cVKq2I'`
	sha  = "0123456789abcdef0123456789abcdef01234567"
)

var expires = time.Date(2026, time.March, 1, 12, 10, 0, 0, time.UTC)

// job and access are those of all examples. The names are such that every
// service would take a part of them for markup.
var (
	job = Job{
		System: "GitHub Actions", Name: "acme/app <!channel> @everyone *te_st* #7", URL: "https://git.example/acme/app/actions/runs/7",
		Repository: "acme/app", Commit: sha,
	}
	access = Access{
		ID: "acme/app/7", SSH: line, SSHStock: "ssh abc@localhost", SFTP: "wsproxy sftp x",
		ClientURL: "wss://relay.example/client/acme/app/7#pin", HostKey: "ssh-ed25519 AAAA", User: "abc",
	}
)

// story is what a session tells.
func story() []Notice {
	return []Notice{
		{Event: Waiting, Access: access, Expires: &expires, Left: 10 * time.Minute},
		{Event: Connected, Access: access, Who: "abc (octo_cat at github.com)"},
		{Event: Warning, Access: access, Expires: &expires, Left: time.Minute},
		{Event: Ended, Access: access, Reason: "last-logout", Sentence: "The session ended because its last user logged out."},
	}
}

// tell sends the story and lets it be delivered.
func tell(t *testing.T, cfg Config) {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := n.Start()
	for _, notice := range story() {
		s.Send(notice)
	}
	s.close(context.Background(), time.Minute) // a loaded machine may need longer than a job waits
}
