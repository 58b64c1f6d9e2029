package hook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/repos"
)

// keeps makes a Hook of one repository, and something that sends to it.
func keeps(t *testing.T, l *launcher) (h *Hook, send func(body string, headers ...string) (int, string)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "repositories.yaml")
	if err := os.WriteFile(file, []byte("repositories:\n  https://h/a/b.git:\n    hook: {token: s3cr3t, secret: hmac}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	source, err := repos.NewFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if h, err = New(Options{Repos: source, Launcher: l, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	return h, func(body string, headers ...string) (int, string) {
		r := httptest.NewRequest(http.MethodPost, "/hook?token=s3cr3t", strings.NewReader(body))
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
}

// TestKeptForLong: a signature with a time is good for as long as the delivery is
// kept.
func TestKeptForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{err: fmt.Errorf("dispatch: %w", nomad.ErrAway)}
		h, send := keeps(t, l)
		const body = `{"object_kind":"push","ref":"refs/heads/main","after":"bffeb74224043ba2feb48d137756c8a9331c449a","project":{"git_http_url":"https://h/a/b.git"}}`
		stamp := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, []byte("hmac"))
		mac.Write([]byte("1." + stamp + "." + body))
		signature := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		headers := []string{"X-Gitlab-Event", "Push Hook", "Webhook-Id", "1", "Webhook-Timestamp", stamp, "Webhook-Signature", signature}
		if code, text := send(body, headers...); code != http.StatusServiceUnavailable || !strings.Contains(text, "it is kept") {
			t.Fatalf("%d %s", code, text)
		}
		time.Sleep(time.Hour) // of the test's own clock
		if code, text := send(body, headers...); code != http.StatusUnauthorized {
			t.Errorf("one that comes late: %d %s", code, text)
		}
		l.err = nil
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { h.Run(ctx) })
		synctest.Wait()
		if l.last == nil || h.Kept() != 0 {
			t.Errorf("%+v was launched, %d are kept", l.last, h.Kept())
		}
		cancel()
		running.Wait()
	})
}

// TestKeptLarge: a delivery whose sender is known is kept however large it is, and
// a stranger's is not.
func TestKeptLarge(t *testing.T) {
	const push = `{"ref":"refs/heads/main","after":"bffeb74224043ba2feb48d137756c8a9331c449a","repository":{"clone_url":"https://h/a/b.git"},"more":"MORE"}`
	body := strings.Replace(push, "MORE", strings.Repeat("x", 2<<20), 1)
	mac := hmac.New(sha256.New, []byte("hmac"))
	mac.Write([]byte(body))
	headers := []string{"X-Gitea-Event", "push", "X-Gitea-Signature", hex.EncodeToString(mac.Sum(nil))}
	for says, away := range map[string]struct {
		launch error
		source repos.Source
		kept   int
	}{
		"it is kept":                 {launch: nomad.ErrAway, kept: 1},
		"it is too large to be kept": {source: nowhere{}},
	} {
		h, send := keeps(t, &launcher{err: away.launch})
		if away.source != nil {
			h.o.Repos = away.source
		}
		if code, text := send(body, headers...); code != http.StatusServiceUnavailable || !strings.Contains(text, says) || h.Kept() != away.kept {
			t.Errorf("%d %s, %d are kept", code, text, h.Kept())
		}
	}
}

// nowhere is a Consul that is away.
type nowhere struct{ repos.Source }

func (nowhere) Get(context.Context, string) (*repos.Repo, error) { return nil, repos.ErrAway }
