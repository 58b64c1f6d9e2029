package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/signin"
	"example.com/converge/pkg/forge"
)

const (
	// placeFor is how long it is remembered where a repository is, and maxPlaces
	// of how many.
	placeFor  = 30 * time.Second
	maxPlaces = 1024
)

// who returns who asks; nil is nobody who is signed in.
func (w *Web) who(r *http.Request) *signin.Person {
	if w.door == nil {
		return nil
	}
	return w.door.Who(r)
}

// acting is who a person is to those who act.
func acting(p *signin.Person) build.Who { return build.Who{Login: p.Login, Forge: p.Forge} }

// errSignIn is a page that only those see who are signed in.
var errSignIn = errors.New("sign in first")

// sees reports whether somebody may see the builds of a repository: what they are
// of, their logs and their debug sessions. p nil is a stranger. The error is
// errSignIn where signing in anew may help.
func (w *Web) sees(ctx context.Context, p *signin.Person, repo string) (bool, error) {
	if w.opt.Settings.PublicLogs {
		return true, nil
	}
	if p == nil {
		return false, errSignIn
	}
	at, err := w.place(ctx, repo)
	if err != nil || at == nil {
		return false, err
	}
	if !w.door.Is(at.Base.String()) {
		return false, nil // the forge that let him in does not know
	}
	may, err := w.door.MayRead(ctx, p, at.Kind, at.Path)
	switch {
	case errors.Is(err, signin.ErrSignedOut):
		return false, errSignIn
	case err != nil:
		return false, errors.Join(build.ErrAway, err)
	}
	return may, nil
}

// may reports whether a request may see the builds of a repository, by who is
// signed in or by the repository's hook token. The error is as that of sees.
func (w *Web) may(ctx context.Context, r *http.Request, repo string) (bool, error) {
	may, err := w.sees(ctx, w.who(r), repo)
	if token, ok := bearer(r); ok && !may && (err == nil || errors.Is(err, errSignIn)) {
		return w.opt.Guard.HookToken(ctx, repo, token)
	}
	return may, err
}

func bearer(r *http.Request) (token string, ok bool) {
	return strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// lost reports whether a request that could see the builds of a repository may not
// any more. Where that cannot be told it may.
func (w *Web) lost(ctx context.Context, r *http.Request, repo string) bool {
	may, err := w.may(ctx, r, repo)
	return errors.Is(err, errSignIn) || err == nil && !may
}

// watch calls end when lost says so, and returns then or with ctx.
func (w *Web) watch(ctx context.Context, r *http.Request, repo string, end func()) {
	quiet := time.NewTicker(w.quiet)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-quiet.C:
			if w.lost(ctx, r, repo) {
				end()
				return
			}
		}
	}
}

// find returns a build that a request may see. Every other answer is given here:
// then ok is false. One that nobody may see is as one that is not there.
func (w *Web) find(rw http.ResponseWriter, r *http.Request, id string) (b build.Build, p *signin.Person, ok bool) {
	p = w.who(r)
	_, bearer := bearer(r)
	if p == nil && !bearer && !w.opt.Settings.PublicLogs {
		w.askIn(rw, r)
		return b, nil, false
	}
	if id == "" || len(id) > maxID {
		w.fail(rw, r, build.ErrUnknown)
		return b, nil, false
	}
	b, err := w.opt.Store.Get(r.Context(), id)
	may := false
	if err == nil {
		may, err = w.may(r.Context(), r, b.Repo)
	}
	switch {
	case may && err == nil:
		return b, p, true
	case errors.Is(err, errSignIn), bearer && p == nil && !w.opt.Settings.PublicLogs && (err == nil || errors.Is(err, build.ErrUnknown)):
		w.askIn(rw, r) // so a stranger does not learn which builds there are
	case err == nil:
		w.fail(rw, r, build.ErrUnknown)
	default:
		w.fail(rw, r, err)
	}
	return b, nil, false
}

// askIn asks somebody to sign in.
func (w *Web) askIn(rw http.ResponseWriter, r *http.Request) {
	text := "Builds are shown to those who may read the repository. Sign in to see them."
	if w.door == nil {
		text = "Builds are not public here, and nobody can sign in. Scripts show the repository's hook token in the header Authorization."
	}
	rw.Header().Set("WWW-Authenticate", `Bearer realm="dispatch"`)
	w.message(rw, r, http.StatusUnauthorized, text)
}

// place is where a repository is at its forge; nil if that is not known, or the
// repository is not registered any more.
func (w *Web) place(ctx context.Context, clone string) (*forge.Repository, error) {
	now := w.now()
	if at, ok := w.places.get(clone, now); ok {
		return at, nil
	}
	repo, err := w.opt.Repos.Get(ctx, clone)
	switch {
	case errors.Is(err, repos.ErrUnknown):
		w.places.put(clone, nil, now)
		return nil, nil
	case err != nil:
		return nil, err
	}
	kind, base := repo.Forge.Kind, repo.Forge.URL
	if in := w.opt.Settings.SignIn; base == "" && w.door != nil && in.Kind != signin.OIDC {
		if kind, err = forge.ParseKind(in.Kind); err != nil {
			return nil, err
		}
		if u, err := url.Parse(clone); err == nil && u.Host == w.door.Host() {
			base = in.Issuer
		}
	}
	at, err := forge.Locate(kind, base, clone)
	if err != nil {
		w.log.Debug("it is not known where a repository is at its forge", "err", err)
		w.places.put(clone, nil, now)
		return nil, nil
	}
	w.places.put(clone, &at, now)
	return &at, nil
}

// places remembers where repositories are.
type places struct {
	mu  sync.Mutex
	all map[string]remembered
}

type remembered struct {
	at    *forge.Repository
	until time.Time
}

func newPlaces() *places { return &places{all: map[string]remembered{}} }

func (p *places) get(clone string, now time.Time) (*forge.Repository, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.all[clone]
	return r.at, ok && now.Before(r.until)
}

func (p *places) put(clone string, at *forge.Repository, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) >= maxPlaces {
		clear(p.all)
	}
	p.all[clone] = remembered{at, now.Add(placeFor)}
}
