package web

import (
	"bytes"
	"html"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// homePage returns the home page with the fixed id, as the header given asks
// for it.
func homePage(t *testing.T, cfg Config, header ...string) string {
	t.Helper()
	h := newHandler(t, cfg)
	h.newID = func() string { return fixedID }
	res := request(h, "GET", "/", header...)
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("status %d, header %v", res.StatusCode, res.Header)
	}
	return body(t, res)
}

var tags = regexp.MustCompile(`<[^>]*>`)

// commands returns the text of each block of command lines on a page.
func commands(page string) map[string]string {
	found := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?s)<pre data-run="([^"]+)">(.*?)</pre>`).FindAllStringSubmatch(page, -1) {
		found[m[1]] = html.UnescapeString(tags.ReplaceAllString(m[2], ""))
	}
	return found
}

func TestHomeGolden(t *testing.T) {
	all := make(map[string]string)
	for _, target := range targets() {
		all[target.file()] = target.file()
	}
	for name, cfg := range map[string]Config{
		"all":  {Downloads: makeFolder(t, all), Origins: newOrigins(t, "https://ci.example.org/converge")},
		"some": {Downloads: makeFolder(t, map[string]string{"wsproxy-darwin-arm64": "w"}), Origins: newOrigins(t, "http://[2001:db8::1]:8080")},
		"none": {},
	} {
		t.Run(name, func(t *testing.T) {
			// The module path has no home yet and may change.
			got := strings.ReplaceAll(homePage(t, cfg), module, "MODULE")
			file := filepath.Join("testdata", "home-"+name+".golden.html")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal([]byte(got), want) {
				t.Errorf("the page is not %s; look at the difference, then run the test with -update", file)
			}
		})
	}
}

func TestHomeCommands(t *testing.T) {
	const id = fixedID
	page := homePage(t, Config{Downloads: makeFolder(t, programs)}, "Host", "h.example:8080")
	got := commands(page)
	for name, want := range map[string]string{
		"job": "curl http://h.example:8080/docs/agent > agent\nchmod 755 agent\n./agent ws://h.example:8080/agent/" + id + "\n",
		"job-safe": "curl -fO http://h.example:8080/docs/agent-linux-amd64\ncurl -fO http://h.example:8080/docs/SHA256SUMS\n" +
			"sha256sum -c --ignore-missing SHA256SUMS && chmod 755 agent-linux-amd64\n" +
			"./agent-linux-amd64 --authorized-keys authorized_keys ws://h.example:8080/agent/" + id + "\n",
		"job-windows":  "curl.exe -fo agent.exe \"http://h.example:8080/docs/agent?os=windows&arch=amd64\"\n.\\agent.exe \"ws://h.example:8080/agent/" + id + "\"\n",
		"engineer":     "curl -f http://h.example:8080/docs/wsproxy > wsproxy\ncurl -f http://h.example:8080/docs/tcptows > tcptows\nchmod 755 wsproxy tcptows\nPATH=\"$PWD:$PATH\"\n",
		"ssh-wsproxy":  "ssh -oServerAliveInterval=10 -oProxyCommand=\"wsproxy ws://h.example:8080/client/" + id + "\" abc@localhost\n",
		"sftp-wsproxy": "sftp -oServerAliveInterval=10 -oProxyCommand=\"wsproxy ws://h.example:8080/client/" + id + "\" abc@localhost\n",
		"tcptows":      "./tcptows 10000 ws://h.example:8080/client/" + id + "\n",
		"ssh-tcptows":  "ssh -oServerAliveInterval=10 -p 10000 abc@localhost\n",
		"sftp-tcptows": "sftp -oServerAliveInterval=10 -oPort=10000 abc@localhost\n",
		"hold":         "touch \"$agentdir/.hold\"\n",
	} {
		if got[name] != want {
			t.Errorf("%s:\n%swant\n%s", name, got[name], want)
		}
	}
	for name := range newHome(Origin{}, id, nil).Lines {
		if _, ok := got[name]; !ok {
			t.Errorf("the block %s is not on the page", name)
		}
	}
	for _, text := range []string{"known_hosts", "--host-key FILE", "never collides", "tcptows</code>. The lines below that fetch it get a 404"} {
		if !strings.Contains(page, text) {
			t.Errorf("the page does not say %q", text)
		}
	}
}

// The words of every sh line reach the programs as they are meant, whatever
// the origin. The programs are functions here that print their arguments.
func TestHomeCommandsInShell(t *testing.T) {
	for _, public := range []string{"http://h.example:8080", "https://ci.example.org/~team/converge", "http://[2001:db8::1]:8080"} {
		t.Run(public, func(t *testing.T) {
			origins := newOrigins(t, public)
			ws := origins.Of(httptest.NewRequest("GET", "/", nil)).WS()
			lines := commands(homePage(t, Config{Downloads: makeFolder(t, programs), Origins: origins}))
			for name, want := range map[string]string{
				"tcptows":     "<10000><" + ws + "/client/" + fixedID + ">\n",
				"ssh-wsproxy": "<-oServerAliveInterval=10><" + ws + "/client/" + fixedID + "><abc@localhost>\n",
				"job":         "<755><agent>\n<" + ws + "/agent/" + fixedID + ">\n",
			} {
				// A pattern that matches something would be replaced by it.
				script := `show() { for a; do
					case "$a" in -oProxyCommand=*) eval "set_url ${a#*=}"; a=$url;; esac
					printf '<%s>' "$a"; done; echo; }
				set_url() { url=$2; }
				curl() { show "$@"; }; chmod() { show "$@"; }; ssh() { show "$@"; }
				` + strings.NewReplacer("./agent", "show", "./tcptows", "show").Replace(lines[name])
				cmd := exec.Command("sh", "-eu", "-c", script)
				cmd.Dir = t.TempDir()
				out, err := cmd.CombinedOutput()
				if err != nil || string(out) != want {
					t.Errorf("%s: %v\n%swant\n%s", name, err, out, want)
				}
			}
		})
	}
}

func TestHomeIsFreshAndPrivate(t *testing.T) {
	h := newHandler(t, Config{})
	ids := make(map[string]bool)
	for range 3 {
		res := request(h, "GET", "/")
		lines := commands(body(t, res))
		id := regexp.MustCompile(`/agent/([a-z2-7]{26})\n$`).FindStringSubmatch(lines["job"])
		if id == nil {
			t.Fatalf("no id of 26 base32 characters in %q", lines["job"])
		}
		ids[id[1]] = true
		for name, want := range map[string]string{
			"Cache-Control":           "no-store",
			"Content-Security-Policy": pagePolicy,
			"Referrer-Policy":         "no-referrer",
			"X-Content-Type-Options":  "nosniff",
			"X-Frame-Options":         "DENY",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
	if len(ids) != 3 {
		t.Errorf("3 views of the page gave %d ids", len(ids))
	}
}

// Every link and form of the page leads somewhere, and every file it needs is
// there; nothing comes from elsewhere and nothing needs a script.
func TestHomeLinks(t *testing.T) {
	for name, cfg := range map[string]Config{"some": {Downloads: makeFolder(t, programs)}, "none": {}} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(t, cfg)
			page := body(t, request(h, "GET", "/"))
			links := regexp.MustCompile(`(?:href|src|action)="([^"]*)"`).FindAllStringSubmatch(page, -1)
			downloads := 0
			for _, m := range links {
				link := html.UnescapeString(m[1])
				if anchor, ok := strings.CutPrefix(link, "#"); ok {
					if !strings.Contains(page, `id="`+anchor+`"`) {
						t.Errorf("no anchor for %s", link)
					}
					continue
				}
				if strings.Contains(link, ":") || strings.HasPrefix(link, "/") {
					t.Errorf("%s is not relative, and breaks under a path prefix", link)
				}
				if strings.HasPrefix(link, "docs/agent-") || strings.HasPrefix(link, "docs/wsproxy-") {
					downloads++
				}
				if link == "docs/tcptows" || link == "docs/guest" { // offered by the form, absent here
					continue
				}
				if res := request(h, "GET", "/"+link); res.StatusCode != 200 {
					t.Errorf("%s: status %d", link, res.StatusCode)
				}
			}
			if want := map[string]int{"some": 6, "none": 0}[name]; downloads != want {
				t.Errorf("%d downloads are linked, want %d", downloads, want)
			}
			for _, banned := range []string{"<script", "style=", "onclick", "http-equiv"} {
				if strings.Contains(page, banned) {
					t.Errorf("the page has %s", banned)
				}
			}
		})
	}
}

func TestHomeHostileRequest(t *testing.T) {
	const marker = `zz"><script>'$(id)`
	page := homePage(t, Config{Origins: newOrigins(t, "", "192.0.2.1")}, // the recorder's peer
		"Host", marker, "X-Forwarded-Host", marker, "X-Forwarded-Proto", marker, "X-Forwarded-Prefix", "/"+marker)
	if strings.Contains(page, "zz") || !strings.Contains(commands(page)["job"], "./agent ws://localhost/agent/"+fixedID+"\n") {
		t.Error("the page repeats what the request sent")
	}
}

func TestAssets(t *testing.T) {
	h := newHandler(t, Config{})
	for path, contentType := range map[string]string{"/assets/style.css": "text/css; charset=utf-8", "/assets/icon.svg": "image/svg+xml"} {
		res := request(h, "GET", path)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != contentType || body(t, res) == "" {
			t.Errorf("%s: status %d, header %v", path, res.StatusCode, res.Header)
		}
		if again := request(h, "GET", path, "If-None-Match", res.Header.Get("ETag")); again.StatusCode != 304 {
			t.Errorf("%s: revalidation gives status %d, want 304", path, again.StatusCode)
		}
	}
	for _, path := range []string{"", "//", "/index.html", "/assets", "/assets/", "/assets/home.html", "/assets/../assets/style.css", "/style.css", "/web.go", "/favicon.ico", "/agent", "/%2e%2e"} {
		wantText(t, request(h, "GET", path), 404)
	}
}

func TestMethods(t *testing.T) {
	h := newHandler(t, Config{Downloads: makeFolder(t, programs)})
	for _, path := range []string{"/", "/docs/agent", "/docs/SHA256SUMS", "/assets/style.css", "/nowhere"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get"} {
			res := request(h, method, path)
			if res.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: Allow %q", method, path, res.Header.Get("Allow"))
			}
			wantText(t, res, 405)
		}
		if get, head := request(h, "GET", path), request(h, "HEAD", path); get.StatusCode != head.StatusCode {
			t.Errorf("%s: GET gives %d, HEAD %d", path, get.StatusCode, head.StatusCode)
		}
	}
}
