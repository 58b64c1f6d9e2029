package serve

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/pkg/nomadtest"
	"example.com/converge/pkg/watchtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	commit = "bffeb74224043ba2feb48d137756c8a9331c449a"
	newer  = "28e1879d029cb852e4844d9c718537df08844e03"
	token  = "s3cr3t"
	// inject must be nowhere but in the payload.
	inject = "SECRET1=xx\nSECRET2=yy"
	// project is the repository's path at the forge.
	project = "team/project"
)

// house is a dispatch with all that it talks to.
type house struct {
	t      testing.TB
	nomad  *nomadtest.Nomad
	consul *nomadtest.Consul
	gitea  *nomadtest.Gitea
	repo   string
	config map[string]any
	s      *settings.Settings
	log    *watchtest.Output
	// archiveWait is for engineOf.
	archiveWait time.Duration
	// back is for engineOf.
	back func()
	// shutdownWait is for start.
	shutdownWait time.Duration

	url  string
	stop func()
}

// newHouse makes one that does not serve yet.
func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, nomad: nomadtest.NewNomad(t), consul: nomadtest.NewConsul(t), gitea: nomadtest.NewGitea(t), log: &watchtest.Output{}}
	h.repo = h.gitea.CloneURL(project)
	h.config = map[string]any{
		"hook": map[string]any{"token": token}, "gitea": map[string]any{"url": h.gitea.URL, "token": h.gitea.Token},
		"trusted": map[string]any{"senders": []string{"ann"}}, "inject": inject,
	}
	h.consul.Put(h.repo, h.config)
	h.nomad.Register(nomadtest.Builder("builder", engine.MetaOptional...))
	public, _ := url.Parse("https://ci.example.com")
	h.s = &settings.Settings{
		PublicURL: public, Listen: "127.0.0.1:0", StatusContext: "Albatros", StateDir: t.TempDir(), Keep: time.Hour, KeepBytes: 1 << 30, PublicLogs: true,
		Nomad: settings.Nomad{Address: h.nomad.URL, Namespace: nomadtest.Namespace}, Consul: settings.Consul{Address: h.consul.URL},
		Debug: settings.Debug{Server: "wss://converge.example.com", For: 30 * time.Minute},
	}
	return h
}

// start serves, until the test ends or stop is called.
func (h *house) start() *house {
	h.t.Helper()
	client, err := nomad.New(h.s.Nomad)
	if err != nil {
		h.t.Fatal(err)
	}
	consul, err := repos.NewConsul(h.s.Consul)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	address, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{
			Settings: h.s, Nomad: client, Repos: consul, Reload: make(chan os.Signal), Listening: func(a string) { address <- a },
			Log: slog.New(slog.NewTextHandler(h.log, nil)), ShutdownWait: h.shutdownWait,
		})
	}()
	var once sync.Once
	h.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				h.t.Error(err)
			}
			client.Close()
			consul.Close()
			http.DefaultClient.CloseIdleConnections()
		})
	}
	h.t.Cleanup(func() {
		h.stop()
		if h.t.Failed() {
			h.t.Log(h.log)
		}
	})
	select {
	case a := <-address:
		h.url = "http://" + a
	case err := <-ended:
		ended <- err
		h.t.Fatal(err)
	}
	return h
}

// push is a push of Gitea's form.
func (h *house) push(branch, commit, sender string) string {
	return fmt.Sprintf(`{"ref":"refs/heads/%s","after":%q,"repository":{"full_name":%q,"clone_url":%q},"sender":{"login":%q}}`, branch, commit, project, h.repo, sender)
}

// pull is a pull request of Gitea's form; from is the path of the head's
// repository.
func (h *house) pull(number int, commit, sender, from string) string {
	return fmt.Sprintf(`{"action":"opened","number":%d,"pull_request":{"head":{"ref":"topic","sha":%q,"repo":{"full_name":%q,"clone_url":%q}}},"repository":{"full_name":%q,"clone_url":%q},"sender":{"login":%q}}`,
		number, commit, from, h.gitea.CloneURL(from), project, h.repo, sender)
}

// post sends a webhook, with headers in pairs.
func (h *house) post(query, body string, headers ...string) (int, string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.url+"/hook"+query, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return h.do(req)
}

func (h *house) do(req *http.Request) (int, string) {
	h.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// hook is post with the right token, which must be answered with a build's id.
func (h *house) hook(body string, headers ...string) string {
	h.t.Helper()
	code, text := h.post("?token="+token+"&flavor=default", body, headers...)
	if code != http.StatusOK || !strings.HasPrefix(text, "builder/dispatch-") {
		h.t.Fatalf("%d %s", code, text)
	}
	return text
}

// status waits for the status of a commit to be this one.
func (h *house) status(commit, state, description string) nomadtest.Status {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	for {
		changed := h.gitea.Changed()
		all := h.gitea.Statuses(project, commit)
		if len(all) > 0 {
			if last := all[len(all)-1]; last.State == state && last.Description == description {
				return last
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			h.t.Fatalf("want the status %s %q, got %+v", state, description, all)
		}
	}
}

func sign(secret, body string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(body))
	return hex.EncodeToString(m.Sum(nil))
}
