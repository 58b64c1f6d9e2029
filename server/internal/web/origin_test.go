package web

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	const proxy, stranger = "10.1.2.3:4000", "192.0.2.7:4000"
	forwarded := []string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "ci.example.com", "X-Forwarded-Prefix", "/converge/"}
	for name, c := range map[string]struct {
		public string
		peer   string
		tls    bool
		host   string
		header []string
		want   string
	}{
		"plain":                       {peer: stranger, host: "h.example:8080", want: "http://h.example:8080"},
		"tls":                         {peer: stranger, tls: true, host: "h.example", want: "https://h.example"},
		"lower case":                  {peer: stranger, host: "H.Example", want: "http://h.example"},
		"underscore":                  {peer: stranger, host: "my_server:80", want: "http://my_server:80"},
		"IPv4":                        {peer: stranger, host: "127.0.0.1:8080", want: "http://127.0.0.1:8080"},
		"IPv6":                        {peer: stranger, host: "[2001:DB8::1]:8080", want: "http://[2001:db8::1]:8080"},
		"no host":                     {peer: stranger, host: "", want: "http://localhost"},
		"stranger's headers":          {peer: stranger, host: "h.example", header: forwarded, want: "http://h.example"},
		"no peer":                     {peer: "@", host: "h.example", header: forwarded, want: "http://h.example"},
		"trusted proxy":               {peer: proxy, host: "inner:8080", header: forwarded, want: "https://ci.example.com/converge"},
		"trusted proxy, IPv4 in IPv6": {peer: "[::ffff:10.1.2.3]:9", host: "inner", header: forwarded, want: "https://ci.example.com/converge"},
		"trusted proxy, IPv6 zone":    {peer: "[fe80::1%eth0]:9", host: "inner", header: forwarded, want: "https://ci.example.com/converge"},
		"proto only":                  {peer: proxy, host: "h.example", header: []string{"X-Forwarded-Proto", "HTTPS"}, want: "https://h.example"},
		"proto wss":                   {peer: proxy, host: "h.example", header: []string{"X-Forwarded-Proto", "wss"}, want: "https://h.example"},
		"proto http over tls":         {peer: proxy, tls: true, host: "h.example", header: []string{"X-Forwarded-Proto", "http"}, want: "http://h.example"},
		"proto unknown":               {peer: proxy, tls: true, host: "h.example", header: []string{"X-Forwarded-Proto", "gopher"}, want: "https://h.example"},
		"last entry":                  {peer: proxy, host: "h.example", header: []string{"X-Forwarded-Host", "evil.example, good.example"}, want: "http://good.example"},
		"last line":                   {peer: proxy, host: "h.example", header: []string{"X-Forwarded-Host", "evil.example", "X-Forwarded-Host", "good.example"}, want: "http://good.example"},
		"hostile forwarded host":      {peer: proxy, host: "h.example", header: []string{"X-Forwarded-Host", `"><script>`}, want: "http://h.example"},
		"hostile prefix":              {peer: proxy, host: "h.example", header: []string{"X-Forwarded-Prefix", "//evil.example"}, want: "http://h.example"},
		"public URL":                  {public: "https://Pub.example/x/", peer: proxy, host: "h.example", header: forwarded, want: "https://pub.example/x"},
		"public URL, hostile host":    {public: "http://pub.example", peer: stranger, tls: true, host: "$(id)", want: "http://pub.example"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host, r.RemoteAddr = c.host, c.peer
			if c.tls {
				r.TLS = &tls.ConnectionState{}
			}
			for i := 0; i < len(c.header); i += 2 {
				r.Header.Add(c.header[i], c.header[i+1])
			}
			o := newOrigins(t, c.public, "10.0.0.0/8", "fe80::1").Of(r)
			if o.HTTP() != c.want {
				t.Errorf("HTTP() = %s, want %s", o.HTTP(), c.want)
			}
			if want := strings.Replace(c.want, "http", "ws", 1); o.WS() != want {
				t.Errorf("WS() = %s, want %s", o.WS(), want)
			}
		})
	}
}

func TestNilOrigins(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Host, r.RemoteAddr = "h.example", "127.0.0.1:1"
	r.Header.Set("X-Forwarded-Host", "evil.example")
	r.Header.Set("X-Forwarded-For", "192.0.2.1")
	var o *Origins
	if got := o.Of(r).HTTP(); got != "http://h.example" {
		t.Errorf("Of: %s", got)
	}
	if got := o.ClientIP(r).String(); got != "127.0.0.1" {
		t.Errorf("ClientIP: %s", got)
	}
}

var hostileHosts = []string{
	"", " ", "a b", "a/b", "a?b", "a#b", "a@b", `a"b`, "a'b", "a<b>", "a&b", "a;id", "$(id)", "`id`", "a\\b", "a\nb", "a\x00b",
	"a%0ab", ".", "..", ".a", "a..b", "-a", "a.-b", ":80", "a:", "a:0", "a:080", "a:65536", "a:-1", "a:b", "a:80:80", "a:+80",
	"[::1", "::1]", "[]", "[::1]x", "[::1%25eth0]", "[::1%eth0]", "[127.0.0.1]", "::1", "[[::1]]", "ünï.example", "a,b", "a=b", "a~b",
	strings.Repeat("a", 254), strings.Repeat("a", 9000),
}

func TestHostileHosts(t *testing.T) {
	for _, host := range hostileHosts {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host, r.RemoteAddr = host, "127.0.0.1:1"
		if !strings.Contains(host, ",") { // which would make it a list
			r.Header["X-Forwarded-Host"] = []string{host}
		}
		if got := newOrigins(t, "", "127.0.0.1").Of(r).Host; got != "localhost" {
			t.Errorf("host %q: got %q, want localhost", host, got)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "/": "", "/converge": "/converge", "/converge/": "/converge", "converge": "/converge", "/a/b_c/~d-e.f/": "/a/b_c/~d-e.f",
		"//": "", "//evil.example": "", "/a//b": "", "/a//": "", "/../x": "", "/a/..": "", "/./a": "", "/a b": "", "/a?b": "", "/a#b": "",
		"/a%2fb": "", `/a"b`: "", "/a'b": "", "/a<b": "", "/$(id)": "", "/`id`": "", "/a;b": "", "/a&b": "", "\\a": "", "/a\nb": "", "/ü": "",
		"https://evil.example": "", "/" + strings.Repeat("a", 256): "",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host, r.RemoteAddr = "h.example", "127.0.0.1:1"
		r.Header["X-Forwarded-Prefix"] = []string{in}
		if got := newOrigins(t, "", "127.0.0.1").Of(r).Prefix; got != want {
			t.Errorf("prefix %q: got %q, want %q", in, got, want)
		}
	}
}

func TestClientIP(t *testing.T) {
	for name, c := range map[string]struct {
		peer  string
		lines []string
		want  string
	}{
		"stranger":               {"192.0.2.7:1", []string{"198.51.100.1"}, "192.0.2.7"},
		"proxy without header":   {"10.0.0.1:1", nil, "10.0.0.1"},
		"one hop":                {"10.0.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		"two trusted hops":       {"10.0.0.1:1", []string{"198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		"forged left entries":    {"10.0.0.1:1", []string{"203.0.113.9, 198.51.100.1,10.0.0.2"}, "198.51.100.1"},
		"several lines":          {"10.0.0.1:1", []string{"203.0.113.9", "198.51.100.1", "10.0.0.2"}, "198.51.100.1"},
		"all trusted":            {"10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"with port":              {"10.0.0.1:1", []string{"198.51.100.1:99"}, "198.51.100.1"},
		"IPv6":                   {"[2001:db8::1]:1", []string{"2001:db8:ffff::2"}, "2001:db8:ffff::2"},
		"IPv6 in brackets":       {"[2001:db8::1]:1", []string{"[2001:db8:ffff::2]"}, "2001:db8:ffff::2"},
		"IPv6 with port":         {"[2001:db8::1]:1", []string{"[2001:db8:ffff::2]:77"}, "2001:db8:ffff::2"},
		"IPv4 in IPv6":           {"10.0.0.1:1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		"garbage":                {"10.0.0.1:1", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		"garbage behind a proxy": {"10.0.0.1:1", []string{"198.51.100.1, _hidden, 10.0.0.2"}, "10.0.0.2"},
		"empty entry":            {"10.0.0.1:1", []string{"198.51.100.1,"}, "10.0.0.1"},
		"unix socket":            {"@", []string{"198.51.100.1"}, "invalid IP"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = c.peer
			r.Header["X-Forwarded-For"] = c.lines
			o := newOrigins(t, "", "::ffff:10.0.0.0/104", "2001:db8::1")
			if got := o.ClientIP(r).String(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestNewOriginsRefuses(t *testing.T) {
	for _, u := range []string{
		"converge.example", "ftp://a.example", "https://", "https://a.example/?x", "https://a.example?", "https://a.example/#x", "https://a.example/#",
		"https://a.example:0", "https://a.example/a b", "https://a.example//b", "https://a.example/%2e%2e", "https://a.example/'", "ht tp://a", "https://[::1", "://",
	} {
		if _, err := NewOrigins(u, nil); err == nil || !strings.Contains(err.Error(), strings.Trim(u, `"`)) {
			t.Errorf("public URL %q: error %v, want one that names it", u, err)
		}
	}
	for _, u := range []string{"https://u:hunter2@a.example", "https://u:hunter2@a b"} {
		if _, err := NewOrigins(u, nil); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("public URL with a password: error %v, want one without it", err)
		}
	}
	for _, p := range []string{"", "proxy.example", "10.0.0.0/33", "10.0.0", "10.0.0.1:80", "fe80::1%eth0"} {
		if _, err := NewOrigins("", []string{"127.0.0.1", p}); err == nil || !strings.Contains(err.Error(), `"`+p+`"`) {
			t.Errorf("trusted proxy %q: error %v, want one that names it", p, err)
		}
	}
}

// safeURL is what may stand in a page or a command line, whatever was sent.
var safeURL = regexp.MustCompile(`^https?://(?:[a-z0-9_.-]{1,253}|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?(?:/[A-Za-z0-9._~-]+)*$`)

func FuzzOrigins(f *testing.F) {
	f.Add("h.example:8080", "https", "ci.example.com", "/converge/", "198.51.100.1, 10.0.0.2", "10.0.0.1:5")
	f.Add("[::1]:80", "", "", "", "", "[::1]:9")
	f.Add("$(id)", "wss", "a\"b", "//evil", "x", "@")
	f.Fuzz(func(t *testing.T, host, proto, forwardedHost, prefix, forwardedFor, remote string) {
		o, err := NewOrigins("", []string{"0.0.0.0/0", "::/0"})
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{Host: host, RemoteAddr: remote, Header: http.Header{
			"X-Forwarded-Proto": {proto}, "X-Forwarded-Host": {forwardedHost}, "X-Forwarded-Prefix": {prefix}, "X-Forwarded-For": {forwardedFor},
		}}
		o.ClientIP(r)
		origin := o.Of(r)
		if !safeURL.MatchString(origin.HTTP()) {
			t.Fatalf("unsafe URL %q", origin.HTTP())
		}
		if u, err := url.Parse(origin.HTTP()); err != nil || u.Host != origin.Host || u.Path != origin.Prefix {
			t.Fatalf("%q is read as %v, %v", origin.HTTP(), u, err)
		}
		again, err := NewOrigins(origin.HTTP(), nil)
		if err != nil {
			t.Fatalf("the origin of a request is no public URL: %v", err)
		}
		if got := again.Of(r); got != origin {
			t.Fatalf("%+v became %+v as a public URL", origin, got)
		}
	})
}
