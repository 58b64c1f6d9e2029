package serve

import (
	"bufio"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/dispatch/internal/signintest"
)

// person is a browser, as far as cookies go: those of an https address are kept
// here, since the test speaks http.
type person struct {
	h       *house
	cookies map[string]string
}

// ask makes a request; form is for a POST.
func (p *person) ask(path string, form url.Values) *http.Response {
	p.h.t.Helper()
	method, body := http.MethodGet, ""
	if form != nil {
		method, body = http.MethodPost, form.Encode()
	}
	req, err := http.NewRequestWithContext(p.h.t.Context(), method, p.h.url+path, strings.NewReader(body))
	if err != nil {
		p.h.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, value := range p.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // no redirects
	if err != nil {
		p.h.t.Fatal(err)
	}
	for _, c := range resp.Cookies() {
		if !c.Secure || !c.HttpOnly || !strings.HasPrefix(c.Name, "__Host-") {
			p.h.t.Errorf("%+v", c)
		}
		if p.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(p.cookies, c.Name)
		}
	}
	return resp
}

// page is ask for a page, which must have this status.
func (p *person) page(path string, form url.Values, status int) (body, location string) {
	p.h.t.Helper()
	resp := p.ask(path, form)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		p.h.t.Fatalf("%s: %s, want %d\n%s %v", path, resp.Status, status, text, err)
	}
	return string(text), resp.Header.Get("Location")
}

// signIn is somebody who has signed in at the forge.
func (h *house) signIn(f *signintest.Forge, login string) *person {
	h.t.Helper()
	f.Do(func() { f.User = login })
	p := &person{h: h, cookies: map[string]string{}}
	_, location := p.page("/signin?back=%2Fbuilds", nil, http.StatusSeeOther)
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, location, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		h.t.Fatal(err)
	}
	resp.Body.Close()
	back, ok := strings.CutPrefix(resp.Header.Get("Location"), h.s.PublicURL.String())
	if !ok {
		h.t.Fatalf("the forge answered %s, and sends to %s", resp.Status, resp.Header.Get("Location"))
	}
	if _, location := p.page(back, nil, http.StatusSeeOther); location != "/builds" {
		h.t.Fatalf("it leads to %s", location)
	}
	return p
}

var (
	csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)
	waitLink  = regexp.MustCompile(`/build\?job=(wait-[0-9a-zA-Z]+)`)
)

func csrf(t *testing.T, body string) url.Values {
	t.Helper()
	found := csrfField.FindStringSubmatch(body)
	if found == nil {
		t.Fatalf("there is no form in\n%s", body)
	}
	return url.Values{"csrf": {found[1]}}
}

// TestPeople: who signs in by the forge sees what he may read there; who is trusted
// approves, follows and cancels from the pages.
func TestPeople(t *testing.T) {
	h := newHouse(t)
	f := signintest.New(t)
	f.Do(func() { f.Readable["ann "+project], f.Readable["reader "+project] = true, true })
	h.repo = f.URL + "/" + project + ".git"
	h.config["gitea"] = map[string]any{"url": f.URL, "token": "x"}
	h.consul.Put(h.repo, h.config)
	h.s.PublicLogs = false
	h.s.SignIn = settings.SignIn{Kind: "gitea", Issuer: f.URL, ClientID: signintest.ClientID, ClientSecret: signintest.ClientSecret}
	h.start()

	body := strings.ReplaceAll(h.pull(9, commit, "eve", "fork/project"), h.gitea.CloneURL("fork/project"), "https://git.example.com/fork/project.git")
	if code, said := h.post("?token="+token, body, "X-Gitea-Event", "pull_request"); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, said)
	}
	nobody := &person{h: h, cookies: map[string]string{}}
	nobody.page("/builds", nil, http.StatusUnauthorized)

	ann, reader, eve := h.signIn(f, "ann"), h.signIn(f, "reader"), h.signIn(f, "eve")
	list, _ := ann.page("/builds", nil, http.StatusOK)
	found := waitLink.FindStringSubmatch(list)
	if found == nil {
		t.Fatalf("no build waits in\n%s", list)
	}
	waits := found[1]
	if list, _ := eve.page("/builds", nil, http.StatusOK); strings.Contains(list, waits) || strings.Contains(list, project) {
		t.Errorf("who may not read sees\n%s", list)
	}
	eve.page("/build?job="+waits, nil, http.StatusNotFound)
	nobody.page("/build?job="+waits, nil, http.StatusUnauthorized)
	page, _ := reader.page("/build?job="+waits, nil, http.StatusOK)
	if strings.Contains(page, "/approve") {
		t.Error("who is not trusted is asked to approve")
	}
	reader.page("/builds/"+waits+"/approve", csrf(t, page), http.StatusForbidden)
	page, _ = ann.page("/build?job="+waits, nil, http.StatusOK)
	ann.page("/builds/"+waits+"/approve", url.Values{}, http.StatusForbidden)
	if len(h.nomad.Children()) != 0 {
		t.Fatal("it was built without approval")
	}
	_, location := ann.page("/builds/"+waits+"/approve", csrf(t, page), http.StatusSeeOther)
	id, err := url.QueryUnescape(strings.TrimPrefix(location, "/build?job="))
	if err != nil || !strings.HasSuffix(string(h.nomad.Payload(id)), inject) {
		t.Fatalf("it leads to %s, with the payload %q", location, h.nomad.Payload(id))
	}
	if _, moved := ann.page("/build?job="+waits, nil, http.StatusSeeOther); moved != location {
		t.Errorf("the old page leads to %s", moved)
	}

	// Both who may read follow the log.
	h.nomad.Place(id)
	h.nomad.Start(id)
	h.nomad.Write(id, "stdout", "hello\n")
	for _, p := range []*person{ann, reader} {
		resp := p.ask(location+"&log=stdout", nil)
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		resp.Body.Close()
		if line != "hello\n" {
			t.Errorf("%q, %v", line, err)
		}
	}
	eve.page(location+"&log=stdout", nil, http.StatusNotFound)

	// The trusted one cancels, the other does not.
	form := csrf(t, page)
	page, _ = reader.page(location, nil, http.StatusOK)
	reader.page("/builds/"+id+"/cancel", csrf(t, page), http.StatusForbidden)
	if h.nomad.Stopped(id) {
		t.Fatal("it was cancelled by who may not")
	}
	ann.page("/builds/"+url.PathEscape(id)+"/cancel", form, http.StatusSeeOther)
	if !h.nomad.Stopped(id) {
		t.Error("it was not cancelled")
	}
	ann.page("/signout", form, http.StatusSeeOther)
	ann.page(location, nil, http.StatusUnauthorized)
	h.stop()
	if said := h.log.String(); strings.Contains(said, "T0KEN") || strings.Contains(said, "SECRET") {
		t.Errorf("a secret is in the log:\n%s", said)
	}
}
