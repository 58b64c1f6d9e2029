package sessions

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"strings"
	"sync"
	"time"
)

// cookieName is the cookie of a browser that is signed in. It holds a random
// value that means nothing elsewhere, and never the token.
const cookieName = "converge_viewer"

// key is a cookie's hash: what is looked up by it tells nothing by its time.
type key [sha256.Size]byte

// signed is a browser that is signed in.
type signed struct {
	key    key
	viewer Viewer
	owner  string // viewer's
	until  time.Time
	gone   chan struct{} // closed when it may look no more
	once   sync.Once
}

func (s *signed) end() { s.once.Do(func() { close(s.gone) }) }

// over reports whether it may look no more.
func (s *signed) over(now time.Time) bool {
	select {
	case <-s.gone:
		return true
	default:
		return !now.Before(s.until)
	}
}

// signIn takes a token from the form.
func (h *Handler) signIn(w http.ResponseWriter, r *http.Request) {
	if !h.sameSite(r) {
		http.Error(w, "forms of other sites are not taken", http.StatusForbidden)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the form cannot be read", http.StatusBadRequest)
		return
	}
	token := strings.TrimSpace(r.PostForm.Get("token"))
	if token == "" {
		h.door(w, http.StatusUnauthorized, "Paste a token first.")
		return
	}
	v, err := h.cfg.Look(r, "Bearer "+token)
	if err != nil {
		h.deny(w, err)
		return
	}
	value := rand.Text() + rand.Text()
	now := h.now()
	s := &signed{key: sha256.Sum256([]byte(value)), viewer: v, owner: v.Owner(), until: now.Add(signedFor), gone: make(chan struct{})}
	if end := v.Until(); !end.IsZero() && end.Before(s.until) {
		s.until = end
	}
	if !h.add(s, now) {
		v.End()
		http.Error(w, "the server is ending: try again in a moment", http.StatusServiceUnavailable)
		return
	}
	v.Follow(s.end)
	h.cfg.SignedIn(r, v)
	http.SetCookie(w, h.cookie(r, value, int(s.until.Sub(now)/time.Second)))
	// Not http.Redirect, which would make it absolute, without the prefix.
	w.Header().Set("Location", h.cfg.Prefix(r)+"/sessions")
	w.WriteHeader(http.StatusSeeOther)
}

// deny answers a form whose token is no good with the form again.
func (h *Handler) deny(w http.ResponseWriter, err error) {
	refusal, ok := err.(Refusal)
	if !ok {
		h.refuse(w, err)
		return
	}
	answer := recorder{header: w.Header()}
	refusal.Answer(&answer)
	w.Header().Del("WWW-Authenticate") // the form is the way in
	w.Header().Del("Content-Length")
	h.door(w, answer.status, sentence(err.Error()))
}

// recorder takes the status and the header of an answer, and not its text.
type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }

// sentence makes one of an error.
func sentence(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// door shows the form.
func (h *Handler) door(w http.ResponseWriter, status int, trouble string) {
	h.page(w, status, "door.html", struct{ Trouble string }{trouble})
}

// goOut signs a browser out.
func (h *Handler) goOut(w http.ResponseWriter, r *http.Request) {
	if !h.sameSite(r) {
		http.Error(w, "forms of other sites are not taken", http.StatusForbidden)
		return
	}
	if s := h.signedIn(r); s != nil {
		h.signOut(s)
	}
	http.SetCookie(w, h.cookie(r, "", -1))
	w.Header().Set("Location", h.cfg.Prefix(r)+"/sessions")
	w.WriteHeader(http.StatusSeeOther)
}

func (h *Handler) cookie(r *http.Request, value string, seconds int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: value, Path: h.cfg.Prefix(r) + "/sessions", MaxAge: seconds,
		HttpOnly: true, Secure: h.cfg.Secure(r), SameSite: http.SameSiteStrictMode,
	}
}

// add keeps a browser signed in, in place of the one that ends first if there
// are too many: of those with the same credential, so that nobody signs others
// out, or else of all.
func (h *Handler) add(s *signed, now time.Time) bool {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return false
	}
	var gone []*signed
	var first, own *signed
	owned := 0
	for _, other := range h.signed {
		if other.over(now) {
			gone = append(gone, other)
			continue
		}
		if first == nil || other.until.Before(first.until) {
			first = other
		}
		if other.owner != s.owner {
			continue
		}
		if owned++; own == nil || other.until.Before(own.until) {
			own = other
		}
	}
	switch {
	case owned >= maxOwned:
		gone = append(gone, own)
	case len(h.signed)-len(gone) >= maxSigned:
		gone = append(gone, first)
	}
	h.signed[s.key] = s
	h.mu.Unlock()
	for _, other := range gone {
		h.signOut(other)
	}
	return true
}

// signOut forgets a browser.
func (h *Handler) signOut(s *signed) {
	h.mu.Lock()
	here := h.signed[s.key] == s
	delete(h.signed, s.key)
	h.mu.Unlock()
	s.end()
	if here {
		s.viewer.End()
	}
}

// signedIn returns the browser that asks, if it is signed in.
func (h *Handler) signedIn(r *http.Request) *signed {
	c, err := r.Cookie(cookieName)
	if err != nil || c.Value == "" {
		return nil
	}
	k := key(sha256.Sum256([]byte(c.Value)))
	h.mu.Lock()
	s := h.signed[k]
	h.mu.Unlock()
	switch {
	case s == nil:
		return nil
	case s.over(h.now()):
		h.signOut(s)
		return nil
	}
	return s
}
