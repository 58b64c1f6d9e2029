package access

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/server/internal/oidc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hash = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestTokenFile(t *testing.T) {
	text := "# comment\n\n  ci agent " + hash + " acme/** other\r\nalice client " + strings.Replace(hash, "0", "1", 1) + "\n"
	ts, err := parseTokens([]byte(text))
	if err != nil || len(ts) != 2 || ts[0].name != "ci" || len(ts[0].ids) != 2 || ts[1].roles[0] != Client {
		t.Fatalf("%+v, %v", ts, err)
	}
	const secret = "hunter2hunter2"
	for text, want := range map[string]string{
		secret:                               "line 1: it is not NAME ROLE HASH",
		"\nci agent " + secret:               `line 2: the third word of "ci" is no hash`,
		"ci agent " + hash[7:]:               "is no hash",
		"ci agent " + hash[:len(hash)-1]:     "is no hash",
		"ci " + secret + " " + hash:          `the second word of "ci" is no role`,
		"ci agent,agent " + hash:             "is no role",
		"-" + secret + " agent " + hash:      "line 1: it does not begin with a name",
		"ci agent " + hash + " /x":           `"ci": the id pattern "/x" can match no id`,
		"ci agent " + hash + " {repository}": "a static token has no claims",
		"ci agent " + hash + "\nci agent " + strings.Replace(hash, "0", "1", 1): "line 2: its name or its hash is that of another line",
		"ci agent " + hash + "\nc2 agent " + hash:                               "line 2: its name or its hash is that of another line",
	} {
		if _, err := parseTokens([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	var many strings.Builder
	for i := range maxTokens {
		fmt.Fprintf(&many, "t%d agent sha256:%064x\n", i, i)
	}
	if ts, err := parseTokens([]byte(many.String())); err != nil || len(ts) != maxTokens {
		t.Error(err)
	}
	if _, err := parseTokens([]byte(many.String() + "x agent " + hash)); err == nil {
		t.Error("there is no end of tokens")
	}
}

// TestMakeToken: what is made is found by its hash, and by nothing else.
func TestMakeToken(t *testing.T) {
	token, line, err := MakeToken("ci", []Role{Agent, Client}, []string{"acme/**"})
	if err != nil || !isToken(token) || strings.Contains(line, token) {
		t.Fatalf("%q, %q, %v", token, line, err)
	}
	other, otherLine, err := MakeToken("other", []Role{Agent}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ts, err := parseTokens([]byte(line + "\n" + otherLine))
	if err != nil {
		t.Fatal(err)
	}
	if found := ts.find(token); found == nil || found.name != "ci" || !found.may("acme/x/y") || found.may("acme") || found.may("evil") {
		t.Errorf("found %+v", found)
	}
	if found := ts.find(other); found == nil || found.name != "other" || !found.may("anything") {
		t.Errorf("found %+v", found)
	}
	for _, wrong := range []string{"", "cvg_", token + "A", token[:len(token)-1], strings.ToLower(token), strings.Replace(token, "cvg_", "cvh_", 1), strings.Fields(line)[2]} {
		if found := ts.find(wrong); found != nil && wrong != token {
			t.Errorf("%q is taken for %s", wrong, found.name)
		}
	}
	if _, _, err := MakeToken("two words", []Role{Agent}, nil); err == nil {
		t.Error("a name of two words is taken")
	}
	if _, _, err := MakeToken("x", []Role{Agent}, []string{"a b"}); err == nil {
		t.Error("a pattern of two words is taken")
	}
}

func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"acme/*", "acme/widgets", true}, {"acme/*", "acme/widgets/1", false}, {"acme/*", "acme/", true}, {"acme/*", "xacme/a", false},
		{"acme/**", "acme/widgets/1", true}, {"acme/**", "acme", false}, {"**", "", true}, {"**", "a\nb/c", true}, {"*", "a\nb", true},
		{"a.c", "abc", false}, {"a.c", "a.c", true}, {"(a|b)", "a", false}, {"*-x", "a-x", true}, {"*-x", "a/b-x", false}, {"ACME", "acme", false},
		{`a\*`, `a\b`, true}, {"a***b", "a/b/b", true},
	} {
		p, err := newPattern(test.pattern)
		if err != nil || p.matches(test.text) != test.want {
			t.Errorf("%q and %q: %v, %v", test.pattern, test.text, !test.want, err)
		}
	}
	claims := oidc.Claims{"repository": {"acme/widgets"}, "star": {"*"}, "dots": {"a.b"}, "two": {"a", "b"}, "empty": {""}, "long": {strings.Repeat("a", 200)}}
	for _, test := range []struct {
		pattern, id string
		want        bool
	}{
		{"{repository}/**", "acme/widgets/1", true}, {"{repository}/**", "acme/gadgets/1", false}, {"{repository}/**", "acme/widgetsx/1", false},
		{"{repository}", "acme/widgets", true}, {"ci/{repository}-*", "ci/acme/widgets-7", true}, {"{star}/x", "anything/x", false},
		{"{dots}/x", "a.b/x", true}, {"{dots}/x", "aab/x", false}, {"{two}/x", "a/x", false}, {"{empty}x/**", "x/y", false}, {"{none}/x", "x/x", false}, {"{long}", strings.Repeat("a", 200), false},
	} {
		p, err := newIDPattern(test.pattern, true)
		if err != nil || p.matches(test.id, claims) != test.want {
			t.Errorf("%q and %q: %v, %v", test.pattern, test.id, !test.want, err)
		}
	}
	for _, bad := range []string{"", "/", "a//b", "{", "}", "{}", "{a}}", "{a{b}}", "a b", "ä", ".a", "a/", strings.Repeat("a", 129)} {
		if _, err := newIDPattern(bad, true); err == nil {
			t.Errorf("%q is taken for an id pattern", bad)
		}
	}
}

const goodPolicy = `# who
issuers:
  - issuer: https://token.actions.githubusercontent.com
    audience: [wss://one.example.org, wss://two.example.org]
    algorithms: RS256
    max-lifetime: 1h
    rules:
      - name: main
        claims: {repository_owner_id: 7, event_name: push, protected: true}
        ids: ["{repository}/**"]
`

func TestPolicyFile(t *testing.T) {
	p, err := parsePolicy([]byte(goodPolicy), "/etc")
	if err != nil || len(p.issuers) != 1 || p.issuers[0].Lifetime != time.Hour || len(p.issuers[0].Audiences) != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	claims := oidc.Claims{"aud": {"wss://two.example.org"}, "repository_owner_id": {"7"}, "event_name": {"push"}, "protected": {"true"}, "repository": {"a/b"}}
	if v := p.judge(p.issuers[0].URL, claims, Agent, "a/b/1"); !v.ok || v.rule != "main" {
		t.Errorf("%+v", v)
	}
	if p.judge(p.issuers[0].URL, claims, Client, "a/b/1").ok || p.judge("https://else", claims, Agent, "a/b/1").ok {
		t.Error("a rule is good for another role or issuer")
	}
	replace := func(old, text string) string { return strings.Replace(goodPolicy, old, text, 1) }
	for text, want := range map[string]string{
		"":                                "it is no YAML",
		"issuers: [":                      "it is no YAML",
		"- a":                             "line 1: the policy must be lines of KEY: VALUE",
		"issuer: x":                       `line 1: the key "issuer" is not known here: it may be issuers`,
		"issuers: x":                      "line 1: it must be a list",
		goodPolicy + "---\nissuers: []\n": "there is a second document",
		goodPolicy + "---\nissuers: [\n":  "there is a second document, or something that is none",
		replace("    max-lifetime", "    max_lifetime"): `line 6: the key "max_lifetime" is not known here: it may be`,
		replace("1h", "soon"):                           `line 6: "soon" is no duration`,
		replace("RS256", "HS256"):                       `line 3: the algorithm "HS256" is none of`,
		replace("RS256", "none"):                        `line 3: the algorithm "none" is none of`,
		replace("https://token", "http://token"):        "is not https",
		replace("    audience: [wss://one.example.org, wss://two.example.org]\n", ""): "has no audience",
		replace("claims: {", "claims: {} #"):                                          "line 8: the rule has no claims",
		replace("ids: [", "ids: [] # ["):                                              "line 8: the rule has no ids",
		replace("{repository}", "{repository"):                                        "line 10: the id pattern",
		replace("name: main", "nam: main"):                                            `line 8: the key "nam" is not known`,
		replace("name: main", "name: main\n        name: x"):                          `line 9: the key "name" is there twice`,
		replace("event_name: push", "event_name: push, event_name: x"):                `the claim "event_name" is there twice`,
		replace("event_name: push", "event_name: []"):                                 `the claim "event_name" has no value`,
		replace("event_name: push", "event_name: {a: b}"):                             "line 9: it must be a word",
		replace("event_name: push", "event_name:"):                                    "line 9: it must be a word",
		replace("name: main", "role: admin"):                                          `line 8: the role "admin" must be agent, client or viewer`,
		goodPolicy + goodPolicy[strings.Index(goodPolicy, "  - issuer"):]:             "is there twice",
	} {
		if _, err := parsePolicy([]byte(text), "/etc"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q, of\n%s", err, want, text)
		}
	}
}

// TestTraps: each known way to let a stranger in is told.
func TestTraps(t *testing.T) {
	policyOf := func(claims string) string {
		return "issuers:\n- issuer: https://ci.example.org\n  audience: a\n  rules:\n  - claims: {" + claims + "}\n    ids: [\"**\"]\n"
	}
	for claims, want := range map[string]string{
		"repository: acme/*, event_name: push":                           "goes by names",
		"repository_owner_id: 7":                                         "asks for no event_name",
		"repository_id: 7, event_name: pull_request_target":              "strangers' pull requests",
		"repository_id: 7, event_name: '*'":                              "strangers' pull requests",
		"sub: 'repo:acme/widgets:**'":                                    "asks for no event_name",
		"project_path: acme/*, ref_protected: true":                      "goes by names",
		"project_id: 7":                                                  "does not ask for ref_protected: true",
		"project_id: 7, ref_protected: [true, false]":                    "does not ask for ref_protected: true",
		"repository_id: 7, event_name: [push, schedule]":                 "",
		"project_id: 7, ref_protected: true":                             "",
		"sub: 'system:serviceaccount:ci:runner'":                         "",
		"kubernetes.io/namespace: ci, kubernetes.io/pod/name: 'build-*'": "",
	} {
		p, err := parsePolicy([]byte(policyOf(claims)), "")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(p.warnings(), "\n"); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", claims, got, want)
		}
	}
}

// TestFollowsFiles: a change is seen by itself, within a second, and a mistake
// is told once.
func TestFollowsFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token, line, err := MakeToken("ci", []Role{Agent}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := MakeToken("other", []Role{Agent}, nil)
	if err != nil {
		t.Fatal(err)
	}
	write("")
	synctest.Test(t, func(t *testing.T) {
		var told []error
		var log bytes.Buffer
		g, err := Open(Config{
			Tokens: file, Reloaded: func(err error) { told = append(told, err) },
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); g.Run(ctx) }()
		may := func() bool {
			time.Sleep(recheck + time.Millisecond)
			synctest.Wait()
			_, err := g.Admit(t.Context(), Request{Role: Agent, ID: "job", Authorization: "Bearer " + token})
			return err == nil
		}
		if may() {
			t.Error("a token that is not there is good")
		}
		write(line)
		if !may() {
			t.Error("a token that came is not good")
		}
		write(line + "\nnonsense")
		for range 2 {
			if !may() {
				t.Error("a mistake took effect")
			}
		}
		if len(told) != 2 || told[1] == nil {
			t.Errorf("a mistake was told as %v", told)
		}
		write(line)
		if !may() || len(told) != 2 || strings.Count(log.String(), "as they were before the mistake") != 1 {
			t.Errorf("a mistake that is over was told as %v and %s", told, &log)
		}
		// A file that is being written, and one that is being swapped.
		for i, text := range []string{"", "# none\n"} {
			for range 2 {
				write(text)
				if !may() {
					t.Error("an empty file revoked all")
				}
			}
			if len(told) != 3 || told[2] == nil || !strings.Contains(told[2].Error(), "it has no token any more") {
				t.Errorf("the %dth empty file was told as %v", i, told)
			}
		}
		write(other)
		if may() || len(told) != 4 || told[3] != nil {
			t.Errorf("a token that went is good, or was told as %v", told)
		}
		cancel()
		<-done
	})
}

// TestSight: what a viewer sees is made once, and anew with other rules.
func TestSight(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	token, line, err := MakeToken("boss", []Role{Viewer}, []string{"acme/**", "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := Open(Config{Tokens: file})
	if err != nil {
		t.Fatal(err)
	}
	grant, err := g.Admit(t.Context(), Request{Role: Viewer, Authorization: "Bearer " + token})
	if err != nil {
		t.Fatal(err)
	}
	if !g.Sees(grant, "acme/1") || !g.Sees(grant, "x") || g.Sees(grant, "y") {
		t.Error("it sees others than it should")
	}
	if made := g.sight(grant); made != g.sight(grant) {
		t.Error("it is made anew for each agent")
	}
	if err := os.WriteFile(file, []byte(strings.Replace(line, "acme/**", "y", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Reload()
	if g.Sees(grant, "acme/1") || !g.Sees(grant, "y") {
		t.Error("it sees by the old rules")
	}
	p, err := parsePolicy([]byte(strings.Replace(goodPolicy, "name: main", "role: viewer", 1)), "")
	if err != nil {
		t.Fatal(err)
	}
	claims := oidc.Claims{"aud": {"wss://two.example.org"}, "repository_owner_id": {"7"}, "event_name": {"push"}, "protected": {"true"}, "repository": {"a.b/c"}}
	n := 0
	for r := range p.met(p.issuers[0].URL, claims, Viewer) {
		with, ok := r.ids[0].with(claims)
		if n++; !ok || !with.matches("a.b/c/1") || with.matches("aab/c/1") {
			t.Errorf("the pattern is %+v, %v", with, ok)
		}
	}
	if n != 1 {
		t.Errorf("%d rules", n)
	}
}

// FuzzTokens: what is read as a token file is within its limits, and what is
// made of it reads the same.
func FuzzTokens(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		ts, err := parseTokens(text)
		if err != nil {
			return
		}
		names := map[string]bool{}
		for _, token := range ts {
			if names[token.name] || !tokenName.MatchString(token.name) || len(token.roles) == 0 {
				t.Errorf("%+v", token)
			}
			names[token.name] = true
			for _, p := range token.ids {
				_ = p.matches("team/repo/job", nil)
			}
		}
	})
}

// FuzzPolicy: what is read as a policy has issuers that pass their check, and
// no rule that lets everybody in unsaid.
func FuzzPolicy(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parsePolicy(text, "")
		if err != nil {
			return
		}
		for _, i := range p.issuers {
			if i.Check() != nil {
				t.Errorf("%+v", i)
			}
			for _, r := range i.rules {
				if len(r.claims) == 0 || len(r.ids) == 0 {
					t.Errorf("%+v", r)
				}
			}
			if v := p.judge(i.URL, oidc.Claims{"aud": i.Audiences}, Agent, "job"); v.ok {
				t.Errorf("a token without claims is let in by %q", v.rule)
			}
		}
		_ = p.warnings()
	})
}

// FuzzPattern: a pattern matches what it stands for, in time.
func FuzzPattern(f *testing.F) {
	f.Fuzz(func(t *testing.T, pattern, text string) {
		p, err := newPattern(pattern)
		if err != nil {
			return
		}
		if !strings.Contains(pattern, "*") && p.matches(text) != (pattern == text) {
			t.Errorf("%q and %q", pattern, text)
		}
	})
}
