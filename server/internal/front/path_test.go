package front

import (
	"net/http"
	"strings"
	"testing"
)

const (
	bad      = http.StatusBadRequest
	sentence = "the path has an empty, dot or encoded segment"
	starts   = "each part between slashes must start with a letter or digit"
)

// paths are request targets as they are sent, with what must become of them.
var paths = []struct {
	target string
	status int
	text   string // in the body
}{
	{"/", 200, "page / /"},
	{"/agent/job", 200, "agent job"},
	{"/client/job", 200, "client job"},
	{"/client/team/repo/job", 200, "client team/repo/job"},
	{"/agent/a.b_c-d~e/0", 200, "agent a.b_c-d~e/0"},
	{"/agent/agent/client/data", 200, "agent agent/client/data"},
	{"/agent/job?x=//../", 200, "agent job"},
	{"/data", 200, "data"},
	{"/data?x", 200, "data"},
	{"/data/x", 200, "page /data/x"},
	{"/database", 200, "page /database"},
	{"/agents/job", 200, "page /agents/job"},
	{"/Agent/job", 200, "page /Agent/job"},
	{"/docs/agent", 200, "page /docs/agent"},
	{"/docs/agent?os=linux", 200, "page /docs/agent"},
	{"/a%20b", 200, "page /a b /a%20b"},
	{"/healthz", 200, "ok"},
	{"/readyz", 200, "ready"},
	{"/agent/" + strings.Repeat("a", 128), 200, "agent aaaa"},

	{"/agent/" + strings.Repeat("a", 129), bad, "longer than 128"},
	{"/agent", bad, "the path has no id: it must be /agent/ID"},
	{"/client", bad, "the path has no id: it must be /client/ID"},
	{"/agent/", bad, "it is empty"},
	{"/client/", bad, "it is empty"},
	{"/client/job/", bad, "ends with a slash"},
	{"/client/.job", bad, starts},
	{"/client/-oProxyCommand=x", bad, starts},
	{"/client/~root", bad, starts},
	{"/client/a/.b", bad, starts},
	{"/client/a%20b", bad, "only letters"},
	{"/client/a+b", bad, "only letters"},
	{"/client/a:b", bad, "only letters"},
	{"/client/a;b", bad, "only letters"},
	{"/client/a@b", bad, "only letters"},
	{"/client/a'b", bad, "only letters"},
	{"/client/a\"b", bad, "only letters"},
	{"/client/<script>", bad, starts},
	{"/client/\xc3\xa9", bad, starts},
	{"/client/a\xff", bad, "only letters"},
	{"/client/%61", bad, starts}, // is no other spelling of a

	{"/agent/../x", bad, sentence},
	{"/agent/..", bad, sentence},
	{"/agent/.", bad, sentence},
	{"/agent/a/../b", bad, sentence},
	{"/agent/a/./b", bad, sentence},
	{"/..", bad, sentence},
	{"/../agent/a", bad, sentence},
	{"/./agent/a", bad, sentence},
	{"//", bad, sentence},
	{"//agent/a", bad, sentence},
	{"//h/agent/a", bad, sentence},
	{"/agent//x", bad, sentence},
	{"/agent/x//", bad, sentence},
	{"/client/a%2Fb", bad, sentence},
	{"/client/a%2fb", bad, sentence},
	{"/client%2fa", bad, sentence},
	{"/agent/%2e%2e/x", bad, sentence},
	{"/agent/%2E%2e/x", bad, sentence},
	{"/agent/.%2e/x", bad, sentence},
	{"/agent/%2e/x", bad, sentence},
	{"/%2e%2e/agent/x", bad, sentence},
	{"/agent/a%5Cb", bad, sentence},
	{"/agent/..\\x", bad, sentence},
	{"/agent/a%00b", bad, sentence},
	{"/docs/..%2fx", bad, sentence},
	{"/docs/../x", bad, sentence},
	{"/agent/%zz", bad, ""}, // net/http's own
	{"/agent/a%2", bad, ""},
	{"agent/a", bad, ""},

	// Absolute form (RFC 9112, section 3.2.2).
	{"http://h/agent/job", 200, "agent job"},
	{"http://other/client/team/job", 200, "client team/job"},
	{"http://h/agent/../x", bad, sentence},
	{"http://h//agent/x", bad, sentence},
	{"http://h/agent/a%2Fb", bad, sentence},
	{"http://h/agent/%2e%2e/x", bad, sentence},
	{"http://h", bad, sentence},
}

func TestPaths(t *testing.T) {
	_, addr := open(t, Config{})
	for _, test := range paths {
		resp, body := get(t, addr, "GET", test.target)
		if resp.StatusCode != test.status || !strings.Contains(body, test.text) {
			t.Errorf("%q: %s %q, want %d %q", test.target, resp.Status, body, test.status, test.text)
		}
		if resp.Header.Get("Location") != "" {
			t.Errorf("%q redirects", test.target)
		}
		if test.status == bad && test.text != "" && (resp.Header.Get("Cache-Control") != "no-store" || strings.Count(body, "\n") != 1) {
			t.Errorf("%q: %q, %q, want one line that is not stored", test.target, resp.Header.Get("Cache-Control"), body)
		}
	}
}

// TestPrefix serves the same with and without the prefix, as the proxy in
// front does it.
func TestPrefix(t *testing.T) {
	_, addr := open(t, Config{Prefix: "/x/y"})
	for _, test := range paths {
		resp, body := get(t, addr, "GET", test.target)
		if resp.StatusCode != test.status || !strings.Contains(body, test.text) {
			t.Errorf("%q: %s %q, want %d %q", test.target, resp.Status, body, test.status, test.text)
		}
		if test.target[0] != '/' {
			continue
		}
		resp, body = get(t, addr, "GET", "/x/y"+test.target)
		if resp.StatusCode != test.status || !strings.Contains(body, test.text) {
			t.Errorf("%q with the prefix: %s %q, want %d %q", test.target, resp.Status, body, test.status, test.text)
		}
	}
	for target, want := range map[string]string{
		"/x/y":                  "page / /",
		"/x/y/":                 "page / /",
		"/x":                    "page /x /x",
		"/x/yy/agent/job":       "page /x/yy/agent/job",
		"/x/y/x/y/agent/job":    "page /x/y/agent/job", // once only
		"/x/y/a%20b":            "page /a b /a%20b",
		"http://h/x/y/agent/jo": "agent jo",
	} {
		if resp, body := get(t, addr, "GET", target); resp.StatusCode != 200 || !strings.HasPrefix(body, want) {
			t.Errorf("%q: %s %q, want %q", target, resp.Status, body, want)
		}
	}
}

func TestMethods(t *testing.T) {
	_, addr := open(t, Config{})
	for _, target := range []string{"/agent/job", "/client/job", "/data"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"} {
			resp, body := get(t, addr, method, target, "Content-Length: 0")
			if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET" {
				t.Errorf("%s %s: %s %q %q", method, target, resp.Status, resp.Header, body)
			}
		}
	}
	// What has no path reaches no endpoint.
	for request, status := range map[string]int{"OPTIONS *": 200, "GET *": 200, "CONNECT h:443": bad} {
		method, target, _ := strings.Cut(request, " ")
		resp, body := get(t, addr, method, target)
		if resp.StatusCode != status || strings.Contains(body, "agent") || strings.Contains(body, "client") {
			t.Errorf("%s: %s %q", request, resp.Status, body)
		}
	}
}

func TestOrigin(t *testing.T) {
	_, plain := open(t, Config{})
	_, proxied := open(t, Config{HostOf: func(*http.Request) string { return "public.example:8443" }})
	for _, test := range []struct {
		addr, origin string
		ok           bool
	}{
		{plain, "", true}, // programs send none
		{plain, "http://h", true},
		{plain, "https://H", true},
		{plain, "http://h:80", false},
		{plain, "http://evil.example", false},
		{plain, "http://h.evil.example", false},
		{plain, "http://evil.example/h", false},
		{plain, "http://h@evil.example", false},
		{plain, "null", false},
		{plain, "h", false},
		{plain, "file://", false},
		{plain, "http://h%zz", false},
		{proxied, "https://public.example:8443", true},
		{proxied, "https://public.example", false},
		{proxied, "http://h", false},
	} {
		for _, target := range []string{"/agent/job", "/client/job", "/data"} {
			var header []string
			if test.origin != "" {
				header = []string{"Origin: " + test.origin}
			}
			resp, body := get(t, test.addr, "GET", target, header...)
			want := 200
			if !test.ok {
				want = http.StatusForbidden
			}
			if resp.StatusCode != want {
				t.Errorf("%s with the Origin %q: %s %q, want %d", target, test.origin, resp.Status, body, want)
			}
		}
	}
	// The pages are for everybody.
	if resp, _ := get(t, plain, "GET", "/", "Origin: http://evil.example"); resp.StatusCode != 200 {
		t.Errorf("a page: %s", resp.Status)
	}
}

// FuzzPlain: what passes means what it says, to whoever cleans it.
func FuzzPlain(f *testing.F) {
	f.Fuzz(func(t *testing.T, path string) {
		if !plain(path) || path == "*" {
			return
		}
		checkPlain(t, path)
	})
}

// TestAllowedOrigins: pages that the operator names may connect, and no others.
func TestAllowedOrigins(t *testing.T) {
	origins, err := ParseOrigins([]string{"https://Pages.example.org", "http://pages.example.org:80", "https://pages.example.org:8443"})
	if err != nil {
		t.Fatal(err)
	}
	_, addr := open(t, Config{Origins: origins})
	for origin, want := range map[string]int{
		"https://pages.example.org": 200, "HTTPS://PAGES.example.org": 200, "http://pages.example.org": 200, "https://pages.example.org:8443": 200,
		"http://pages.example.org:8443": 403, "https://pages.example.org.evil.example": 403, "https://evil.example": 403,
		"https://x@pages.example.org": 403, "https://pages.example.org/x": 403, "null": 403, "http://h": 200,
	} {
		resp, body := get(t, addr, "GET", "/client/job", "Origin: "+origin)
		if resp.StatusCode != want || resp.Header.Get("Content-Security-Policy") == "" || resp.Header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %s %v %q, want %d", origin, resp.Status, resp.Header, body, want)
		}
	}
	for _, bad := range []string{"", "*", "null", "pages.example.org", "https://", "https://a/", "https://a?b", "https://u@a", "ftp://a", "https://a b"} {
		if _, err := ParseOrigins([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
