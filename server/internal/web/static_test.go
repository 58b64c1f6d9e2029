package web

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var site = map[string]string{
	"index.html":       `<a href="http@secure@://@host@/x">@host@</a> ws@secure@ @other@`,
	"raw.html":         "@host@ as it is",
	"docs/guide.html":  "<p>a guide",
	"docs/agent":       "not the program",
	"img/logo.svg":     "<svg/>",
	"img/index.html":   "a folder's own page",
	"a b/ü.txt":        "odd name",
	".well-known/x":    "well known",
	"assets/style.css": "the site's own",
}

func TestStatic(t *testing.T) {
	dir := makeFolder(t, site)
	h := newHandler(t, Config{Static: dir, Downloads: makeFolder(t, programs)})
	for path, want := range map[string]string{
		"/":                 `<a href="http://converge.example.org/x">converge.example.org</a> ws @other@`,
		"/index.html":       `<a href="http://converge.example.org/x">converge.example.org</a> ws @other@`,
		"/raw.html":         site["raw.html"],
		"/docs/guide.html":  site["docs/guide.html"],
		"/img/logo.svg":     site["img/logo.svg"],
		"/img/index.html":   site["img/index.html"],
		"/a b/ü.txt":        site["a b/ü.txt"],
		"/.well-known/x":    site[".well-known/x"],
		"/assets/style.css": site["assets/style.css"],
		"/docs/agent":       programs["agent-linux-amd64"],
	} {
		res := request(h, "GET", path)
		if got := body(t, res); res.StatusCode != 200 || got != want {
			t.Errorf("%s: %d %q, want %q", path, res.StatusCode, got, want)
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Content-Security-Policy") == "" || res.Header.Get("Cache-Control") == "" {
			t.Errorf("%s: header %v", path, res.Header)
		}
	}
	for _, path := range []string{
		"/img", "/img/", "/docs", "/docs/", "/nowhere", "//index.html", "/./raw.html", "/img/../raw.html", "/../raw.html", "/..", "/raw.html/", "/raw.html/x", "/docs/tcptows", "/a\x00b", `/img\logo.svg`,
	} {
		wantText(t, request(h, "GET", path), 404)
	}
	if res := request(h, "GET", "/img/logo.svg", "If-Modified-Since", "Mon, 06 May 2024 07:08:09 GMT"); res.StatusCode != 304 {
		t.Errorf("revalidation: status %d, want 304", res.StatusCode)
	}
	if res := request(h, "GET", "/raw.html", "Range", "bytes=0-5"); res.StatusCode != 206 || body(t, res) != "@host@" {
		t.Errorf("range: status %d", res.StatusCode)
	}
}

func TestStaticOrigin(t *testing.T) {
	h := newHandler(t, Config{Static: makeFolder(t, site), Origins: newOrigins(t, "https://ci.example.org:8443/converge/")})
	want := `<a href="https://ci.example.org:8443/converge/x">ci.example.org:8443/converge</a> wss @other@`
	if got := body(t, request(h, "GET", "/")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	h = newHandler(t, Config{Static: makeFolder(t, site)})
	if got := body(t, request(h, "GET", "/", "Host", `x"><script>`)); strings.Contains(got, "script") || !strings.Contains(got, "http://localhost/x") {
		t.Errorf("hostile host: %s", got)
	}
}

func TestStaticStaysInFolder(t *testing.T) {
	outside := makeFolder(t, map[string]string{"secret": "secret"})
	dir := makeFolder(t, site)
	for name, to := range map[string]string{
		"absolute": filepath.Join(outside, "secret"),
		"relative": filepath.Join("..", filepath.Base(outside), "secret"),
		"folder":   outside,
		"inside":   filepath.Join("img", "logo.svg"),
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	h := newHandler(t, Config{Static: dir})
	for _, path := range []string{"/absolute", "/relative", "/folder", "/folder/secret"} {
		wantText(t, request(h, "GET", path), 404)
	}
	if got := body(t, request(h, "GET", "/inside")); got != site["img/logo.svg"] {
		t.Errorf("link inside the folder: %q", got)
	}
}

func TestStaticIndexChanges(t *testing.T) {
	dir := makeFolder(t, site)
	h := newHandler(t, Config{Static: dir})
	writeFile(t, filepath.Join(dir, "index.html"), "new @host@")
	if got := body(t, request(h, "GET", "/")); got != "new converge.example.org" {
		t.Errorf("after a change: %q", got)
	}
	if err := os.Remove(filepath.Join(dir, "index.html")); err != nil {
		t.Fatal(err)
	}
	wantText(t, request(h, "GET", "/"), 500)
}
