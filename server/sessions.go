package main

import (
	"log/slog"
	"net/http"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/gate"
	"example.com/converge/server/internal/hub"
	"example.com/converge/server/internal/sessions"
)

// sessionPages are the pages of --sessions; without that option they are none.
type sessionPages struct{ h *sessions.Handler }

// newSessions joins the page with who is here and who may look.
func newSessions(p *prepared, d *doorkeeper, joiner *hub.Hub, log *slog.Logger) (sessionPages, error) {
	if !p.sessions {
		return sessionPages{}, nil
	}
	h, err := sessions.New(sessions.Config{
		Present: joiner.Present,
		Look: func(r *http.Request, authorization string) (sessions.Viewer, error) {
			v, err := d.gate.Look(r, authorization)
			if err != nil {
				return nil, err
			}
			return v, nil
		},
		SignedIn: func(r *http.Request, v sessions.Viewer) {
			if v, ok := v.(*gate.Viewer); ok {
				d.gate.SignedIn(r, v)
			}
		},
		Secure:  func(r *http.Request) bool { return p.origins.Of(r).Secure },
		Host:    func(r *http.Request) string { return p.origins.Of(r).Host },
		Prefix:  func(r *http.Request) string { return p.origins.Of(r).Prefix },
		Version: cmdline.Version(),
		Logger:  log,
	})
	return sessionPages{h}, err
}

// handler is nil without the option.
func (s sessionPages) handler() http.Handler {
	if s.h == nil {
		return nil
	}
	return s.h
}

// live counts the pages that are being refreshed.
func (s sessionPages) live() int {
	if s.h == nil {
		return 0
	}
	return s.h.Live()
}

func (s sessionPages) close() {
	if s.h != nil {
		s.h.Close()
	}
}
