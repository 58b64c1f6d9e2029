package web

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/repos"
)

// TestAccess: who may not read the repository sees nothing of its builds, and
// learns nothing of them.
func TestAccess(t *testing.T) {
	w := open(t, false, false)
	w.write(id, build.Stdout, "out\n")
	w.change(func() {
		w.ended[id+" stdout"], w.ended[secret+" stdout"] = true, true
		for i := range w.builds {
			w.builds[i].Debug = &build.Session{Line: "ssh line-to-paste", Until: time.Now().Add(time.Hour)}
		}
	})
	own, other := "/build?"+job, "/build?job="+url.QueryEscape(secret)
	stranger, guest := w.browser(), w.signedIn("guest")
	for _, test := range []struct {
		name   string
		c      *http.Client
		path   string
		header string
		status int
	}{
		{"stranger", stranger, own, "", 401}, {"stranger", stranger, other, "", 401}, {"stranger", stranger, "/build?job=none", "", 401},
		{"stranger", stranger, own + "&log=stdout", "", 401}, {"stranger", stranger, "/builds", "", 401}, {"stranger", stranger, "/builds/events", "", 401},
		{"stranger", stranger, "/builds/" + id + "/events", "", 401},
		{"guest", guest, own, "", 200}, {"guest", guest, own + "&log=stdout", "", 200}, {"guest", guest, "/builds", "", 200},
		{"guest", guest, other, "", 404}, {"guest", guest, other + "&log=stdout", "", 404}, {"guest", guest, "/build?job=none", "", 404},
		{"guest", guest, "/builds/" + secret + "/events", "", 404},
		{"script", stranger, own + "&log=stdout", "Authorization: Bearer h00k", 200}, {"script", stranger, own, "Authorization: Bearer h00k", 200},
		{"script of another", stranger, other + "&log=stdout", "Authorization: Bearer h00k", 401},
		{"script", stranger, "/build?job=none", "Authorization: Bearer h00k", 401},
		{"wrong script", stranger, own + "&log=stdout", "Authorization: Bearer x", 401},
		{"empty script", stranger, own + "&log=stdout", "Authorization: Bearer ", 401},
		{"script", stranger, "/builds", "Authorization: Bearer h00k", 401},
	} {
		resp, body := w.ask(test.c, "GET", test.path, "", strings.Split(test.header, "\n")...)
		if resp.StatusCode != test.status {
			t.Errorf("%s %s: %s", test.name, test.path, resp.Status)
		}
		if strings.Contains(body, "hush") || strings.Contains(body, "acme/secret") {
			t.Errorf("%s %s: there is\n%s", test.name, test.path, body)
		}
		if test.status != 200 && (strings.Contains(body, "line-to-paste") || strings.Contains(body, "acme/app")) {
			t.Errorf("%s %s: there is\n%s", test.name, test.path, body)
		}
		if test.status == 401 && resp.Header.Get("WWW-Authenticate") == "" && !strings.Contains(test.path, "events") {
			t.Errorf("%s: nothing says how to get in", test.path)
		}
	}
	if _, body := w.ask(guest, "GET", own, ""); !strings.Contains(body, "ssh line-to-paste") || strings.Contains(body, "<button>Cancel") {
		t.Errorf("who may read sees\n%s", body)
	}
	// One who asks to see a page is led there once he is in.
	if _, body := w.ask(stranger, "GET", own, ""); !strings.Contains(body, "/ci/signin?back="+strings.ReplaceAll(url.QueryEscape(own), "&", "&amp;")) {
		t.Errorf("%s", body)
	}
	// The forge's word holds as long as its token does.
	w.forge.Revoke()
	w.web.now = func() time.Time { return time.Now().Add(time.Hour) }
	again := w.signedIn("guest")
	w.forge.Revoke()
	if resp, _ := w.ask(again, "GET", own, ""); resp.StatusCode != 401 {
		t.Errorf("with a token that was withdrawn: %s", resp.Status)
	}
	// A repository that is not registered any more is nobody's, and neither is one
	// of another forge than that by which people sign in.
	w.change(func() { delete(w.repos, w.app) })
	third := w.signedIn("octo")
	w.web.places = newPlaces()
	if resp, _ := w.ask(third, "GET", own, ""); resp.StatusCode != 404 {
		t.Errorf("not registered: %s", resp.Status)
	}
	w.change(func() {
		w.repos[w.app] = &repos.Repo{URL: w.app, Forge: repos.Forge{Kind: "gitea", URL: "https://else.example"}}
	})
	w.web.places = newPlaces()
	if resp, _ := w.ask(third, "GET", own, ""); resp.StatusCode != 404 {
		t.Errorf("of another forge: %s", resp.Status)
	}
}

// TestNobody: where nobody can sign in and logs are not public, scripts are all
// that gets in.
func TestNobody(t *testing.T) {
	w := open(t, false, true)
	if resp, body := w.ask(w.browser(), "GET", "/build?"+job, ""); resp.StatusCode != 401 || !strings.Contains(body, "hook token") || strings.Contains(body, "Sign in") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if resp, _ := w.ask(w.browser(), "GET", "/build?"+job, "", "Authorization: Bearer h00k"); resp.StatusCode != 200 {
		t.Errorf("%s", resp.Status)
	}
}
