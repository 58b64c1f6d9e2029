package web

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
)

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

func csrf(t *testing.T, page string) string {
	t.Helper()
	found := csrfField.FindStringSubmatch(page)
	if found == nil {
		t.Fatalf("there is no form in\n%s", page)
	}
	return found[1]
}

func (w *world) done() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.did)
}

// TestActions: the trusted act by the forms of their page, and nobody else does.
func TestActions(t *testing.T) {
	w := open(t, true, false)
	trusted, guest, stranger := w.signedIn("octo"), w.signedIn("guest"), w.browser()
	_, body := w.ask(trusted, "GET", "/build?"+job, "")
	token := "csrf=" + csrf(t, body)
	if !strings.Contains(body, `action="/ci/builds/`+url.PathEscape(id)+`/cancel"`) || strings.Contains(body, "Run again") {
		t.Errorf("%s", body)
	}
	_, body = w.ask(guest, "GET", "/build?"+job, "")
	guests := "csrf=" + csrf(t, body) // the form of signing out has it, too
	if strings.Contains(body, "/cancel") {
		t.Error("who is not trusted has the form")
	}
	if _, body = w.ask(stranger, "GET", "/build?"+job, ""); strings.Contains(body, "<form") {
		t.Error("a stranger has a form")
	}
	path := "/builds/" + id + "/cancel"
	for name, test := range map[string]struct {
		c      *http.Client
		form   string
		header string
		status int
	}{
		"no form":            {trusted, "", "", 403},
		"another's form":     {trusted, guests, "", 403},
		"wrong form":         {trusted, token + "x", "", 403},
		"in the address":     {trusted, "x=y", "", 403},
		"from elsewhere":     {trusted, token, "Sec-Fetch-Site: cross-site", 403},
		"from a sibling":     {trusted, token, "Sec-Fetch-Site: same-site", 403},
		"of another origin":  {trusted, token, "Origin: https://evil.example", 403},
		"too long":           {trusted, token + "&x=" + strings.Repeat("x", maxForm), "", 400},
		"stranger":           {stranger, token, "", 401},
		"with a hook token":  {stranger, token, "Authorization: Bearer h00k", 401},
		"not trusted":        {guest, guests, "", 403},
		"nobody's cookie":    {stranger, token, "Cookie: converge_dispatch_session=AAAA", 401},
		"another's and ours": {guest, token, "", 403},
	} {
		resp, body := w.ask(test.c, "POST", path+"?"+token, test.form, test.header)
		if resp.StatusCode != test.status {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
	}
	if did := w.done(); len(did) != 0 {
		t.Fatalf("%v was done", did)
	}
	for _, test := range []struct{ path, header, to string }{
		{"/builds/" + id + "/cancel", "Sec-Fetch-Site: same-origin", id},
		{"/builds/" + url.PathEscape(id) + "/rerun", "Origin: " + w.URL, "builder/dispatch-2"},
		{"/builds/" + waits + "/approve", "", "builder/dispatch-3"},
	} {
		resp, body := w.ask(trusted, "POST", test.path, token, test.header)
		if resp.StatusCode != 303 || resp.Header.Get("Location") != "/ci/build?job="+url.QueryEscape(test.to) {
			t.Errorf("%s: %s %s %s", test.path, resp.Status, resp.Header.Get("Location"), body)
		}
	}
	if got, want := fmt.Sprint(w.done()), fmt.Sprintf("[cancel %s by octo rerun %s by octo approve %s by octo]", id, id, waits); got != want {
		t.Errorf("%s", got)
	}
	if resp, body := w.ask(trusted, "POST", "/builds/"+id+"/approve", token); resp.StatusCode != 409 || !strings.Contains(body, "state does not allow") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if resp, _ := w.ask(trusted, "POST", "/builds/none/cancel", token); resp.StatusCode != 404 {
		t.Errorf("%s", resp.Status)
	}
	// What fits the state is offered.
	if _, body := w.ask(trusted, "GET", "/build?job="+waits, ""); !strings.Contains(body, "Approve this commit") || !strings.Contains(body, "Do not build") {
		t.Errorf("%s", body)
	}
	w.finish(build.Failure, "exit 1")
	if _, body := w.ask(trusted, "GET", "/build?"+job, ""); !strings.Contains(body, "Run again") || strings.Contains(body, "/cancel") {
		t.Errorf("%s", body)
	}
	w.change(func() { w.builds[0].Debug = &build.Session{Line: "ssh x", Until: time.Now().Add(time.Hour)} })
	if _, body := w.ask(trusted, "GET", "/build?"+job, ""); !strings.Contains(body, "End the session") {
		t.Errorf("%s", body)
	}
	// Nothing of this goes on after signing out.
	if resp, _ := w.ask(trusted, "POST", "/signout", token); resp.StatusCode != 303 {
		t.Errorf("%s", resp.Status)
	}
	if resp, _ := w.ask(trusted, "POST", path, token); resp.StatusCode != 401 {
		t.Errorf("%s", resp.Status)
	}
	if said := w.log.String(); strings.Contains(said, "T0KEN") || strings.Contains(said, "h00k") || !strings.Contains(said, "action=cancel") {
		t.Errorf("the log is\n%s", said)
	}
}

// TestSignInFails: the page says why.
func TestSignInFails(t *testing.T) {
	w := open(t, false, false)
	if resp, body := w.ask(w.browser(), "GET", "/signin/callback?state=x&code=SECRET", ""); resp.StatusCode != 400 || !strings.Contains(body, "sign in again") || strings.Contains(body, "SECRET") {
		t.Errorf("%s %s", resp.Status, body)
	}
	w.forge.Do(func() { w.forge.Broken = true })
	if resp, body := w.ask(w.browser(), "GET", "/signin", ""); resp.StatusCode != 502 || !strings.Contains(body, "try again") {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// TestReport: what a builder tells is checked, and the token goes in a header.
func TestReport(t *testing.T) {
	w := open(t, false, false)
	c, soon := w.browser(), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	opened := `{"state":"open","exit":1,"line":"ssh x","url":"https://relay.example/t","until":"` + soon + `"}`
	for _, test := range []struct {
		id, token, body string
		status          int
	}{
		{id, "Bearer one-time", `{"state":"failed","exit":1}`, 204},
		{url.PathEscape(id), "Bearer one-time", opened, 204},
		{id, "Bearer one-time", `{"state":"closed"}`, 409},
		{id, "Bearer other", opened, 401},
		{id, "Bearer ", opened, 401},
		{id, "Basic one-time", opened, 401},
		{id, "", opened, 401},
		{"none", "Bearer one-time", opened, 404},
		{strings.Repeat("x", maxID+1), "Bearer one-time", opened, 404},
		{id, "Bearer one-time", ``, 400},
		{id, "Bearer one-time", `{"state":"else"}`, 400},
		{id, "Bearer one-time", `{"state":1}`, 400},
		{id, "Bearer one-time", `{"state":"open","until":"` + soon + `"}`, 400},
		{id, "Bearer one-time", `{"state":"open","line":"ssh x","until":"soon"}`, 400},
		{id, "Bearer one-time", `{"state":"open","line":"ssh no end"}`, 204},
		{id, "Bearer one-time", `{"state":"open","line":"ssh wrong clock","until":"1999-01-01T00:00:00Z"}`, 204},
		{id, "Bearer one-time", strings.Replace(opened, "ssh x", `ssh x\nrm -rf ~`, 1), 400},
		{id, "Bearer one-time", strings.Replace(opened, "ssh x", `ssh\u001b[8m x`, 1), 400},
		{id, "Bearer one-time", strings.Replace(opened, "ssh x", `ssh\u202e x`, 1), 400},
		{id, "Bearer one-time", strings.Replace(opened, "https:", "javascript:", 1), 400},
		{id, "Bearer one-time", strings.Replace(opened, "ssh x", strings.Repeat("x", maxSessionLine+1), 1), 400},
		{id, "Bearer one-time", strings.Replace(opened, "ssh x", strings.Repeat("x", maxReport+1), 1), 400},
	} {
		resp, body := w.ask(c, "POST", "/builds/"+test.id+"/debug", test.body, "Authorization: "+test.token, "Content-Type: application/json")
		if resp.StatusCode != test.status {
			t.Errorf("%q %.100s: %s %s", test.token, test.body, resp.Status, body)
		}
	}
	if got := fmt.Sprint(w.done()); got != "[report failed  report open ssh x report open ssh no end report open ssh wrong clock]" {
		t.Errorf("%s", got)
	}
}
