//go:build unix

package session

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/notify"
	"example.com/converge/pkg/expiry"
	"example.com/converge/pkg/rendezvous"
)

// told is a notice as a receiver gets it.
type told struct {
	Event    string
	Who      string
	Reason   string
	Sentence string
	Expires  *time.Time
	Access   struct {
		ID, SSH, User string
		Password      bool
	}
	raw string
}

// team is where notices go.
type team struct {
	*httptest.Server
	notifier *notify.Notifier
	got      chan told
}

// newTeam starts one; answer, if not nil, comes before what was told is passed on.
func newTeam(t *testing.T, answer http.HandlerFunc) *team {
	t.Helper()
	m := &team{got: make(chan told, 100)}
	m.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if answer != nil {
			answer(w, r)
		}
		n := told{raw: string(body)}
		_ = json.Unmarshal(body, &n)
		m.got <- n
	}))
	m.Config.ErrorLog = log.New(io.Discard, "", 0)
	m.StartTLS()
	t.Cleanup(m.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.notifier, err = notify.New(notify.Config{Targets: []string{"json+" + m.URL + "/hooks/secret-of-the-team"}, CAFile: ca}); err != nil {
		t.Fatal(err)
	}
	return m
}

// hears waits for a notice of an event.
func (m *team) hears(t *testing.T, event string) told {
	t.Helper()
	select {
	case n := <-m.got:
		if n.Event != event {
			t.Fatalf("%s, want %s", n.raw, event)
		}
		return n
	case <-time.After(patience):
		t.Fatalf("nobody told of %s", event)
		return told{}
	}
}

// TestNotices tells of a session from its beginning to its end, and nowhere its
// password.
func TestNotices(t *testing.T) {
	const password = "hunter2-hunter2"
	m := newTeam(t, nil)
	a := start(t, func(c *Config) {
		c.Notify, c.SSH.Password, c.Access.Password = m.notifier, password, password
		c.Expiry = expiry.Config{Expiry: time.Hour, Warning: time.Hour - time.Millisecond}
	})
	waiting := m.hears(t, "waiting")
	if waiting.Access.ID != "team/job" || !strings.HasPrefix(waiting.Access.SSH, "wsproxy ssh \"ws://") || !strings.Contains(a.out.String(), waiting.Access.SSH) ||
		waiting.Access.User != "abc" || !waiting.Access.Password || waiting.Expires == nil {
		t.Errorf("%s", waiting.raw)
	}
	client := a.login()
	s := a.shell(client)
	s.typeIn("echo ty''ped\n") // puts the end off, so that there is a warning
	s.shows(`typed`)
	// A warning from before the job could be entered is not told, another one
	// may have come before the login.
	others := map[string]told{}
	for range 2 {
		select {
		case n := <-m.got:
			others[n.Event] = n
		case <-time.After(patience):
			t.Fatalf("nobody told more than %v", others)
		}
	}
	warning, connected := others["warning"], others["connected"]
	if connected.Who != "abc" || connected.Expires != nil || warning.Expires == nil {
		t.Errorf("%v", others)
	}
	s.leave(client)
	a.ends(0)
	ended := m.hears(t, "ended")
	if ended.Reason != "last-logout" || ended.Sentence != "The session ended because its last user logged out." {
		t.Errorf("%s", ended.raw)
	}
	for _, n := range []told{waiting, warning, connected, ended} {
		if strings.Contains(n.raw, password) || strings.Contains(n.raw, "192.0.2.7") {
			t.Errorf("it tells the password, or where somebody is: %s", n.raw)
		}
	}
	if strings.Contains(a.log.String()+a.out.String(), "secret-of-the-team") {
		t.Error("the log has the address")
	}
}

// TestNoticesNobodyTakes: a receiver that answers nobody, or refuses, changes
// neither the session nor its exit code.
func TestNoticesNobodyTakes(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"silent":  func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"refuses": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
	} {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan struct{}, 100)
			m := newTeam(t, func(w http.ResponseWriter, r *http.Request) {
				arrived <- struct{}{}
				answer(w, r)
			})
			a := start(t, func(c *Config) { c.Notify = m.notifier })
			select {
			case <-arrived:
			case <-a.context().Done():
				t.Fatal("nobody was told")
			}
			client := a.login()
			if got := a.run(client, "echo works"); got != "works\n" {
				t.Errorf("%q", got)
			}
			a.stop()
			a.ends(0)
		})
	}
}

// TestNoticesOfCommand: nobody is called while the job's command runs, or when it
// succeeds.
func TestNoticesOfCommand(t *testing.T) {
	m := newTeam(t, nil)
	job := make(chan JobEnd)
	a := start(t, func(c *Config) { c.Notify, c.Job = m.notifier, job })
	a.said(`host key`)
	job <- JobEnd{Text: "ended with exit code 2", Stay: true}
	if n := m.hears(t, "waiting"); n.Access.ID != "team/job" {
		t.Errorf("%s", n.raw)
	}
	a.stop()
	a.ends(0)
	if n := m.hears(t, "ended"); n.Reason != "signal" {
		t.Errorf("%s", n.raw)
	}
	t.Run("succeeds", func(t *testing.T) {
		job := make(chan JobEnd)
		a := start(t, func(c *Config) { c.Notify, c.Job = m.notifier, job })
		a.said(`host key`)
		job <- JobEnd{Text: "ended"}
		a.ends(0)
		if len(m.got) != 0 {
			t.Errorf("told: %s", (<-m.got).raw)
		}
	})
	t.Run("fails before there is an id", func(t *testing.T) {
		job := make(chan JobEnd)
		a := launch(t, newServer(t), func(c *Config) { c.Notify, c.Job = m.notifier, job })
		job <- JobEnd{Text: "ended with exit code 2", Stay: true}
		a.said(`ended with exit code 2`)
		a.register()
		m.hears(t, "waiting")
		a.stop()
		a.ends(0)
		m.hears(t, "ended")
	})
}

// TestNoticeOfLostPlace tells why nobody can come.
func TestNoticeOfLostPlace(t *testing.T) {
	m := newTeam(t, nil)
	a := start(t, func(c *Config) { c.Notify, c.Link.KeepID = m.notifier, true })
	m.hears(t, "waiting")
	_ = a.control.Close()
	c, err := a.server.Control(a.context())
	if err == nil {
		err = c.Refuse(rendezvous.RefusedTaken, "the id is taken")
	}
	if err != nil {
		t.Fatal(err)
	}
	a.fails("the id is taken")
	if n := m.hears(t, "ended"); n.Reason != "unreachable" {
		t.Errorf("%s", n.raw)
	}
}

// TestNoticeOnce: somebody who comes with several connections is told of once.
func TestNoticeOnce(t *testing.T) {
	m := newTeam(t, nil)
	a := start(t, func(c *Config) { c.Notify = m.notifier })
	m.hears(t, "waiting")
	var clients []*ssh.Client
	for range 3 {
		clients = append(clients, a.login())
	}
	m.hears(t, "connected")
	for _, client := range clients {
		_ = client.Close()
	}
	a.ends(0)
	m.hears(t, "ended")
}
