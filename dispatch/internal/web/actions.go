package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/signin"
)

// maxSessionLine is the longest line to paste, in bytes.
const maxSessionLine = 2048

// form reads a form of ours from somebody who is signed in, or answers.
func (w *Web) form(rw http.ResponseWriter, r *http.Request) (*signin.Person, bool) {
	if err := w.cross.Check(r); err != nil {
		w.message(rw, r, http.StatusForbidden, "Forms of other sites are not taken.")
		return nil, false
	}
	p := w.who(r)
	if p == nil {
		w.askIn(rw, r)
		return nil, false
	}
	r.Body = http.MaxBytesReader(rw, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		w.message(rw, r, http.StatusBadRequest, "The form cannot be read.")
		return nil, false
	}
	if !p.CheckCSRF(r.PostForm.Get("csrf")) {
		w.message(rw, r, http.StatusForbidden, "The form is not of a page of yours, or of an older sign-in: load the page again.")
		return nil, false
	}
	return p, true
}

// act cancels, repeats or approves a build.
func (w *Web) act(rw http.ResponseWriter, r *http.Request, id, action string) {
	if w.door == nil {
		w.message(rw, r, http.StatusForbidden, "Nobody can sign in here, so builds are changed on the command line only: dispatch "+action+" ID")
		return
	}
	p, ok := w.form(rw, r)
	if !ok {
		return
	}
	b, _, ok := w.find(rw, r, id)
	if !ok {
		return
	}
	var err error
	to := b.ID
	switch action {
	case "cancel":
		err = w.opt.Actions.Cancel(r.Context(), acting(p), b.ID)
	case "rerun":
		to, err = w.opt.Actions.Rerun(r.Context(), acting(p), b.ID)
	case "approve":
		to, err = w.opt.Actions.Approve(r.Context(), acting(p), b.ID)
	}
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	w.log.Info("a build was changed from its page", "action", action, "build", b.ID, "who", p.Login)
	w.redirect(rw, page(to))
}

// signIn sends a browser to the forge.
func (w *Web) signIn(rw http.ResponseWriter, r *http.Request) {
	if err := w.door.Begin(rw, r, r.URL.Query().Get("back")); err != nil {
		w.fail(rw, r, err)
	}
}

// signedIn takes it when it comes back.
func (w *Web) signedIn(rw http.ResponseWriter, r *http.Request) {
	p, back, err := w.door.Finish(rw, r)
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	w.log.Info("somebody signed in", "who", p.Login)
	w.redirect(rw, back)
}

func (w *Web) signOut(rw http.ResponseWriter, r *http.Request) {
	p, ok := w.form(rw, r)
	if !ok {
		return
	}
	w.door.SignOut(rw, p)
	w.redirect(rw, "/builds")
}

// report takes what a builder says of its debug session.
func (w *Web) report(rw http.ResponseWriter, r *http.Request, id string) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" || len(token) > maxID {
		rw.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(rw, "show the token of the build", http.StatusUnauthorized)
		return
	}
	if len(id) > maxID {
		w.fail(rw, r, build.ErrUnknown)
		return
	}
	var said build.Report
	if err := json.NewDecoder(http.MaxBytesReader(rw, r.Body, maxReport)).Decode(&said); err != nil {
		http.Error(rw, "the report is no JSON object, or is too long", http.StatusBadRequest)
		return
	}
	if trouble := check(said); trouble != "" {
		http.Error(rw, trouble, http.StatusBadRequest)
		return
	}
	if err := w.opt.Debug.Report(r.Context(), id, token, said); err != nil {
		w.fail(rw, r, err)
		return
	}
	rw.WriteHeader(http.StatusNoContent)
}

// check says what is wrong with a report. People will paste the line, and follow
// the link.
func check(said build.Report) string {
	switch said.State {
	case build.ReportFailed, build.ReportClosed:
		return ""
	case build.ReportOpen:
	default:
		return "the state of the report is none of failed, open and closed"
	}
	if said.Line == "" || len(said.Line) > maxSessionLine || strings.ContainsFunc(said.Line, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "the line of the report is not one line of text"
	}
	if said.URL != "" {
		if u, err := url.Parse(said.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || len(said.URL) > maxSessionLine {
			return "the url of the report is none"
		}
	}
	return "" // the end is by the builder's clock: Debug sees to it
}
