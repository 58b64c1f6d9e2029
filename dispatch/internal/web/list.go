package web

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/signin"
)

// listView is what the list is filled with.
type listView struct {
	frame
	Query  string
	Builds []view
	// Running and Waiting are how many of them do.
	Running, Waiting int
	More             bool // there are older ones
}

// query is the filter: a part of a repository's URL, branch, sender or flavour.
func query(r *http.Request) string {
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	return strings.ToValidUTF8(q[:min(len(q), maxQuery)], "")
}

// list answers with the page of all builds.
func (w *Web) list(rw http.ResponseWriter, r *http.Request) {
	p := w.who(r)
	if p == nil && !w.opt.Settings.PublicLogs {
		w.askIn(rw, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askFor)
	defer cancel()
	done, ok := w.make(ctx)
	if !ok {
		w.fail(rw, r, build.ErrAway)
		return
	}
	v, err := w.builds(ctx, p, query(r))
	text := ""
	if err == nil {
		text, err = w.fill("builds.html", v)
	}
	done() // who reads slowly keeps nobody's page from being made
	if errors.Is(err, errSignIn) {
		w.askIn(rw, r)
		return
	}
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	w.send(rw, http.StatusOK, "builds.html", text, nil)
}

// make waits for a place to make a page in.
func (w *Web) make(ctx context.Context) (done func(), ok bool) {
	select {
	case w.making <- struct{}{}:
		return func() { <-w.making }, true
	case <-ctx.Done():
		return nil, false
	}
}

// builds makes the list as somebody sees it. A repository of which it cannot be
// told whether he may is left out.
func (w *Web) builds(ctx context.Context, p *signin.Person, q string) (listView, error) {
	back := "/builds"
	v := listView{frame: w.frame(p, back), Query: q}
	limit := maxSearched
	if q == "" && w.opt.Settings.PublicLogs {
		limit = maxShown + 1
	}
	all, err := w.opt.Store.List(ctx, limit)
	if err != nil {
		return v, err
	}
	may, said := map[string]bool{}, false
	for _, b := range all {
		if !matches(b, q) {
			continue
		}
		sees, known := may[b.Repo]
		if !known {
			if sees, err = w.sees(ctx, p, b.Repo); errors.Is(err, errSignIn) {
				return v, err
			} else if err != nil && !said {
				said = true
				w.log.Warn("it cannot be told who may see the builds of a repository", "err", err)
			}
			may[b.Repo] = sees
		}
		if !sees {
			continue
		}
		if len(v.Builds) == maxShown {
			v.More = true
			break
		}
		switch b.State {
		case build.Running:
			v.Running++
		case build.Waiting, build.Queued:
			v.Waiting++
		}
		v.Builds = append(v.Builds, w.view(ctx, b, p, false))
	}
	return v, nil
}

func matches(b build.Build, q string) bool {
	if q == "" {
		return true
	}
	for _, text := range []string{b.Repo, b.Branch, b.Sender, b.Flavor, b.Commit, string(b.State)} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(q)) {
			return true
		}
	}
	return false
}

// listEvents refreshes the list: each event is the new one as a whole.
func (w *Web) listEvents(rw http.ResponseWriter, r *http.Request) {
	p := w.who(r)
	if p == nil && !w.opt.Settings.PublicLogs {
		http.Error(rw, "sign in first", http.StatusUnauthorized)
		return
	}
	s, ok := w.follow(rw, r)
	if !ok {
		return
	}
	defer s.end()
	changes := w.opt.Store.Subscribe(s.ctx, "")
	tick := time.NewTicker(w.tick)
	defer tick.Stop()
	quiet := time.NewTicker(w.quiet)
	defer quiet.Stop()
	last, changed := "", true
	for {
		if changed {
			v, err := w.builds(s.ctx, p, query(r))
			if errors.Is(err, errSignIn) {
				s.send("gone", "", "")
				return
			}
			if err == nil {
				text, err := w.fill("list.html", v)
				if err != nil {
					w.log.Error("a page was not served", "err", err)
					return
				}
				if text != last && !s.send("", "", text) {
					return
				}
				last = text
			}
			changed = false
		}
		select {
		case <-s.ctx.Done():
			return
		case _, ok := <-changes:
			if !ok {
				return
			}
			changed = true
		case <-quiet.C:
			if w.door != nil && p != nil && w.who(r) == nil { // signed out
				s.send("gone", "", "")
				return
			}
			if changed = true; !s.send("", "", "") { // also for the times in it
				return
			}
			continue
		}
		// Not more often than this, however much happens meanwhile.
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}
