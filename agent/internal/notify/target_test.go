package notify

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/pkg/watchtest"
)

func TestParse(t *testing.T) {
	own := Config{Token: "t0ken", Template: "{{.Text}}", Forge: "github", ForgeURL: "https://github.com", Job: Job{Repository: "acme/app", Commit: sha}}
	for text, want := range map[string]string{
		"https://hooks.slack.com/services/T/B/X":                         "slack at hooks.slack.com",
		"https://discord.com/api/webhooks/1/x":                           "discord at discord.com",
		"https://prod-1.westeurope.logic.azure.com:443/workflows/x?sig=": "teams at prod-1.westeurope.logic.azure.com:443",
		"https://abc.environment.api.powerplatform.com/x?a=b+c":          "teams at abc.environment.api.powerplatform.com",
		"slack+https://chat.example/hooks/a+b":                           "slack at chat.example",
		"mattermost+https://chat.example/hooks/x":                        "mattermost at chat.example",
		"json+http://127.0.0.1:1/x":                                      "json at 127.0.0.1:1",
		"json+http://[::1]:1/x":                                          "json at [::1]:1",
		"template+https://user:password@x/y":                             "template at x",
		"status":                                                         "github status at github.com",
		"comment":                                                        "github comment at github.com",
		"github-comment+https://github.com/acme/app/pull/7":              "github comment at github.com",
		"gitlab-status+https://gitlab.com/a/b/c/-/commit/" + sha:         "gitlab status at gitlab.com",
		"forgejo-comment+https://codeberg.org/acme/app/pulls/7":          "gitea comment at codeberg.org",
	} {
		got, err := own.parse(text)
		if err != nil || got.name != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
	const s = "SECRETSECRET"
	for text, want := range map[string]string{
		"":                                                             "give status, comment or FORMAT+URL",
		"slack":                                                        "give status, comment or FORMAT+URL",
		"https://chat.example/hooks/" + s:                              "cannot tell the format that chat.example wants",
		"http://hooks.slack.com/" + s:                                  "is not an https one",
		"slack+http://chat.example/" + s:                               "is not an https one",
		"irc+https://chat.example/" + s:                                `no format "irc"`,
		"status+https://chat.example/" + s:                             `no format "status"`,
		"github-x+https://chat.example/" + s:                           `no format "github-x"`,
		"slack+https://chat.example/#" + s:                             "give status",
		"slack+https:///" + s:                                          "give status",
		"slack+https://chat.example/%zz" + s:                           "give status",
		"github-status+https://github.com/acme/app/pull/7":             "a status is one of a commit",
		"github-status+https://github.com/acme/app/commit/main":        "not the address of a commit",
		"github-status+https://github.com/app/commit/" + sha:           "not the address of a commit",
		"github-status+https://u:p@github.com/acme/app/commit/" + sha:  "no password and no query",
		"gitlab-comment+https://gitlab.com/acme/app/merge_requests/7":  "not the address of a commit",
		"gitea-comment+https://git.example/acme/app/commit/" + sha:     "comments are for pull requests",
		"gitea-comment+https://git.example/acme/../app/pulls/" + "007": "not the address",
	} {
		if _, err := own.parse(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), s) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestMissing: what a job's environment lacks stops nobody.
func TestMissing(t *testing.T) {
	for want, cfg := range map[string]Config{
		"wants a token":                {Forge: "github", ForgeURL: "https://github.com", Job: Job{Repository: "a/b", Commit: sha}},
		"does not say on which forge":  {Token: "x", Job: Job{Repository: "a/b", Commit: sha}},
		"SourceHut has neither":        {Token: "x", Forge: "SourceHut"},
		"no plain https":               {Token: "x", Forge: "gitea", ForgeURL: "http://git.example"},
		"not name the job":             {Token: "x", Forge: "gitlab"},
		"none is known; name its page": {Token: "x", Forge: "gitlab", Job: Job{Repository: "a/b"}},
	} {
		var j watchtest.Output
		cfg.Targets, cfg.Logger = []string{"status", "json+https://x"}, logger(&j)
		n, err := New(cfg)
		if err != nil || len(n.targets) != 1 || !strings.Contains(j.String(), want) {
			t.Errorf("%v: %v: %s, want %q", cfg, err, j.String(), want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(bad, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]Config{
		"17 places":     {Targets: make([]string, MaxTargets+1)},
		"place 2":       {Targets: []string{"json+https://x", "json"}},
		"no PEM":        {Targets: []string{"json+https://x"}, CAFile: bad},
		"goes to one f": {Token: "x", Targets: []string{"github-comment+https://github.com/a/b/pull/1", "github-comment+https://ghe.example/a/b/pull/1"}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if n, err := New(Config{}); err != nil || n.Start() != nil {
		t.Errorf("without a place: %v, %v", n, err)
	}
	var none *Notifier
	s := none.Start()
	s.Send(Notice{Event: Waiting})
	s.Close(t.Context())
}

// TestSecrets: none of what a webhook's address has in it is repeated, as it is
// written or decoded.
func TestSecrets(t *testing.T) {
	u, err := url.Parse("https://somebody:passw%25rd@chat.example/services/T0AAAAAAA/B0%2FBBBBBB?sig=sss%3Dssssss&v=1")
	if err != nil {
		t.Fatal(err)
	}
	text := "failed: T0AAAAAAA B0%2FBBBBBB B0/BBBBBB BBBBBB9 sss%3Dssssss sss=ssssss somebody passw%rd passw%25rd services"
	got := secretsOf(u, "t0ken").Replace(text)
	for _, secret := range []string{"AAAA", "B0%2F", "B0/B", "sss", "somebody", "passw"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q is left in %q", secret, got)
		}
	}
	if got := secretsOf(nil, "t0ken").Replace("the t0ken"); got != "the …" {
		t.Errorf("%q", got)
	}
}

// FuzzParse must neither panic nor repeat what it was given.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		cfg := Config{Token: "token", Template: "x", Forge: "github", ForgeURL: "https://github.com", Job: Job{Repository: "a/b", Commit: sha}}
		got, err := cfg.parse(text)
		if err != nil {
			if errors.Is(err, errMissing) && !strings.Contains(text, "status") && !strings.Contains(text, "comment") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if got.name == "" || got.address.Hostname() == "" {
			t.Errorf("%q: %v", text, got)
		}
	})
}
