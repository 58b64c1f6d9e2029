package probe

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/server/internal/front"
	"example.com/converge/server/internal/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a whole server; in front changes what reaches it.
func serve(t *testing.T, inFront func(http.Handler) http.Handler) rendezvous.Server {
	t.Helper()
	h := hub.New(hub.Config{})
	var handler http.Handler = front.New(front.Config{Endpoints: h, Pages: http.NotFoundHandler()})
	if inFront != nil {
		handler = inFront(handler)
	}
	s := httptest.NewServer(handler)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return rendezvous.Server{Host: s.Listener.Addr().String()}
}

func TestCheck(t *testing.T) {
	if err := Check(t.Context(), serve(t, nil), transport.Options{}); err != nil {
		t.Error(err)
	}
}

func TestCheckFails(t *testing.T) {
	for name, test := range map[string]struct {
		inFront func(http.Handler) http.Handler
		want    string
	}{
		"a proxy that passes no websocket": {func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Header.Del("Upgrade")
				next.ServeHTTP(w, r)
			})
		}, "cannot register as an agent"},
		"a proxy that does not know /data": {func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == rendezvous.DataPath {
					http.Error(w, "what is that", http.StatusNotFound)
					return
				}
				next.ServeHTTP(w, r)
			})
		}, "cannot dial back as an agent"},
		"a proxy that keeps clients out": {func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, rendezvous.ClientPath) {
					http.Error(w, "who are you", http.StatusForbidden)
					return
				}
				next.ServeHTTP(w, r)
			})
		}, "cannot connect as a client"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check(t.Context(), serve(t, test.inFront), transport.Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
