package forge

import (
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const sha = "0123456789abcdef0123456789abcdef01234567"

func TestParsePage(t *testing.T) {
	for address, want := range map[string]struct {
		kind               Kind
		api, repo, it, num string
	}{
		"https://github.com/acme/app/commit/" + sha:                 {GitHub, "https://api.github.com", "/repos/acme/app", sha, ""},
		"https://github.com/acme/.github/pull/7":                    {GitHub, "https://api.github.com", "/repos/acme/.github", "", "7"},
		"https://acme.ghe.com/acme/app/pull/7/":                     {GitHub, "https://api.acme.ghe.com", "/repos/acme/app", "", "7"},
		"https://ghe.example/acme/app/pull/7":                       {GitHub, "https://ghe.example/api/v3", "/repos/acme/app", "", "7"},
		"https://gitlab.example/a/b/c/-/merge_requests/7":           {GitLab, "https://gitlab.example/api/v4", "/projects/a%2Fb%2Fc", "", "7"},
		"https://git.example/forge/acme/app/pulls/7":                {Gitea, "https://git.example/forge/api/v1", "/repos/acme/app", "", "7"},
		"https://git.example/acme/app/commit/" + sha + sha[:24]:     {Gitea, "https://git.example/api/v1", "/repos/acme/app", sha + sha[:24], ""},
		"https://git.example:8443/acme/commit/commit/commit/" + sha: {Gitea, "https://git.example:8443/acme/api/v1", "/repos/commit/commit", sha, ""},
	} {
		p, err := ParsePage(want.kind, parse(t, address))
		if err != nil || p.API() != want.api || p.inAPI() != want.repo || p.Commit != want.it || p.Pull != want.num {
			t.Errorf("%s: %v: %+v, want %v", address, err, p, want)
		}
	}
	for address, kind := range map[string]Kind{
		"https://github.com/acme/app/commit/main":           GitHub,
		"https://github.com/app/commit/" + sha:              GitHub,
		"https://github.com/acme/app/pull/0":                GitHub,
		"https://gitlab.com/acme/app/merge_requests/7":      GitLab,
		"https://git.example/acme/../pulls/7":               Gitea,
		"https://git.example/acme/a%20b/pulls/7":            Gitea,
		"https://git.example/" + strings.Repeat("a/", 2000): Gitea,
	} {
		if p, err := ParsePage(kind, parse(t, address)); err == nil {
			t.Errorf("%s: %+v", address, p)
		}
	}
}

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestLocate: from what git clones to where the API has it.
func TestLocate(t *testing.T) {
	for _, test := range []struct {
		kind        Kind
		base, clone string
		api, path   string // or the error's
	}{
		{Gitea, "", "https://git.example/acme/app.git", "https://git.example/api/v1", "acme/app"},
		{Gitea, "", "https://git.example/forge/acme/app.git", "https://git.example/forge/api/v1", "acme/app"},
		{Gitea, "https://git.example/forge/", "https://git.example/forge/acme/app.git", "https://git.example/forge/api/v1", "acme/app"},
		{Gitea, "https://git.example/forge", "git@git.example:acme/app.git", "https://git.example/forge/api/v1", "acme/app"},
		{Gitea, "https://git.example", "ssh://git@ssh.git.example:2222/acme/app", "https://git.example/api/v1", "acme/app"},
		{Gitea, "http://127.0.0.1:3000", "http://127.0.0.1:3000/Acme/App.git", "http://127.0.0.1:3000/api/v1", "Acme/App"},
		{GitHub, "", "https://github.com/acme/app", "https://api.github.com", "acme/app"},
		{GitHub, "https://github.com", "git@github.com:acme/.github.git", "https://api.github.com", "acme/.github"},
		{GitLab, "", "https://user:SECRET@gitlab.com/a/b/c.git", "https://gitlab.com/api/v4", "a/b/c"},
		{GitLab, "https://gitlab.example/x", "https://gitlab.example/x/a/b.git", "https://gitlab.example/x/api/v4", "a/b"},

		{Gitea, "http://git.example:3000", "http://git.example:3000/acme/app.git", "http://git.example:3000/api/v1", "acme/app"},
		{Gitea, "ftp://git.example", "https://git.example/SECRET/app.git", "", "no plain URL"},
		{Gitea, "", "git@git.example:SECRET/app.git", "", "cannot be told"},
		{Gitea, "", "/srv/SECRET/app.git", "", "cannot be told"},
		{Gitea, "https://user:SECRET@git.example", "https://git.example/acme/app", "", "no plain URL"},
		{Gitea, "https://git.example?SECRET", "https://git.example/acme/app", "", "no plain URL"},
		{Gitea, "https://git.example", "https://git.example/SECRET", "", "OWNER/NAME"},
		{Gitea, "https://git.example", "https://git.example/SECRET/b/c", "", "OWNER/NAME"},
		{Gitea, "https://git.example", "https://git.example/SECRET/..", "", "OWNER/NAME"},
		{Gitea, "https://git.example", "https://git.example/SECRET/a?b", "", ""},
		{GitLab, "https://git.example", "https://git.example/SECRET/a%0ab", "", "OWNER/NAME"},
		{GitLab, "https://git.example", "", "", "OWNER/NAME"},
	} {
		r, err := Locate(test.kind, test.base, test.clone)
		if test.api == "" && test.path != "" {
			if err == nil || !strings.Contains(err.Error(), test.path) || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("%s %s: %v, %v", test.base, test.clone, r, err)
			}
			continue
		}
		if test.api == "" { // a query is none of the repository's
			if err != nil || r.Path != "SECRET/a" {
				t.Errorf("%s: %v, %v", test.clone, r, err)
			}
			continue
		}
		if err != nil || r.API() != test.api || r.Path != test.path || strings.Contains(r.String(), "SECRET") {
			t.Errorf("%s %s: %v, %s, %v", test.base, test.clone, r, r.API(), err)
		}
	}
}

func TestParseBase(t *testing.T) {
	for text, want := range map[string]string{
		"https://git.example/x": "", "http://127.0.0.1:3000": "", "http://localhost": "", "http://[::1]:1": "",
		"http://git.example": "not an https one", "ftp://git.example": "no plain URL", "git.example": "no plain URL", "": "no plain URL",
		"https://user:SECRET@git.example": "no plain URL", "https://git.example#SECRET": "no plain URL",
	} {
		_, err := ParseBase(text)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET")) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		c, err := NewClient(Config{Kind: Gitea, URL: text, AllowHTTP: true})
		if (err == nil) != (want == "" || want == "not an https one") {
			t.Errorf("%q where http is allowed: %v", text, err)
		}
		if c != nil {
			c.Close()
		}
	}
}

func TestParseKind(t *testing.T) {
	for text, want := range map[string]Kind{"github": GitHub, "gitlab": GitLab, "gitea": Gitea, "forgejo": Gitea, "": "", "sourcehut": ""} {
		if got, err := ParseKind(text); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func FuzzLocate(f *testing.F) {
	f.Add("gitea", "", "https://git.example/forge/acme/app.git")
	f.Add("gitlab", "https://git.example/x", "git@git.example:a/b/c.git")
	f.Fuzz(func(t *testing.T, kind, base, clone string) {
		r, err := Locate(Kind(kind), base, clone)
		if err != nil {
			return
		}
		if !IsPath(r.Path) || r.Base.Scheme != "https" && r.Base.Scheme != "http" || r.Base.User != nil {
			t.Errorf("%q %q: %v", base, clone, r)
		}
		if u, err := url.Parse(r.API() + r.inAPI()); err != nil || u.RawQuery != "" || u.Fragment != "" {
			t.Errorf("%q %q: %s%s", base, clone, r.API(), r.inAPI())
		}
	})
}
