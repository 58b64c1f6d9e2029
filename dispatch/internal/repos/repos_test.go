package repos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"example.com/converge/pkg/forge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	repo = "https://git.example.com/team/project.git"
	// albatros is the reference's example of a configuration.
	albatros = `{"hook":{"token":"s3cr3t-h00k"},"gitea":{"url":"https://git.example.com/","token":"T0KEN"},"trusted":{"senders":["ann","bob"]},"inject":"SECRET1=xx\nSECRET2=yy"}`
)

// sshKey is a public key as people paste it.
const sshKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA5cMfIDLxQPpgmG8dU1F0ycXWaGFA7HjyS81N0NnLrI ann@laptop"

// quiet wants an error to be a *BadValue that names key and field and repeats no
// value: every value of these tests that is secret has an S3CR3T or T0KEN in it.
func quiet(t *testing.T, err error, key, field, problem string) {
	t.Helper()
	var bad *BadValue
	switch {
	case !errors.As(err, &bad):
		t.Errorf("%v is no *BadValue", err)
	case bad.Key != key || bad.Field != field || !strings.Contains(bad.Problem, problem):
		t.Errorf("%q, %q: %q, want %q: %q", bad.Key, bad.Field, bad.Problem, field, problem)
	case strings.Contains(strings.ToUpper(err.Error()), "S3CR3T") || strings.Contains(err.Error(), "T0KEN"):
		t.Errorf("a value is in %q", err)
	}
}

func TestKey(t *testing.T) {
	// printf %s URL | base64
	if got := Key("https://git.example.com/team/project.git"); got != "albatros/aHR0cHM6Ly9naXQuZXhhbXBsZS5jb20vdGVhbS9wcm9qZWN0LmdpdA==" {
		t.Errorf("%s", got)
	}
}

// TestParseJSON: the reference's keys and ours, and what is none of ours.
func TestParseJSON(t *testing.T) {
	r, err := parseJSON("k", repo, []byte(albatros))
	if err != nil {
		t.Fatal(err)
	}
	if r.URL != repo || r.Key != "k" || !r.TokenIs("s3cr3t-h00k") || r.HookSecret != "" || r.Forge != (Forge{forge.Gitea, "https://git.example.com", "T0KEN"}) ||
		fmt.Sprint(r.Trusted) != "[ann bob]" || string(r.Inject) != "SECRET1=xx\nSECRET2=yy" || r.Flavors != nil || r.CancelSuperseded {
		t.Errorf("%+v", r)
	}
	r, err = parseJSON("k", repo, []byte(`{"hook":{"secret":"x","else":1},"gitlab":{"url":"https://gitlab.example/x"},"flavors":["default","arm64"],"cancel_superseded":true,
		"debug":{"keys":["`+sshKey+`"]},"unknown":{"a":[1]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if r.HookSecret != "x" || r.Forge != (Forge{forge.GitLab, "https://gitlab.example/x", ""}) || len(r.Flavors) != 2 || !r.CancelSuperseded || len(r.DebugKeys) != 1 {
		t.Errorf("%+v", r)
	}
	for text, want := range map[string]forge.Kind{"gitea": forge.Gitea, "forgejo": forge.Gitea, "github": forge.GitHub, "gitlab": forge.GitLab} {
		r, err := parseJSON("k", repo, []byte(`{"hook":{"token":"x"},"`+text+`":{"url":"https://x"}}`))
		if err != nil || r.Forge.Kind != want {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
	}
}

// TestRefusals: every mistake is named by its field, and no value is repeated.
func TestRefusals(t *testing.T) {
	with := func(more string) string { return `{"hook":{"token":"s3cr3t"},` + more + `}` }
	for name, test := range map[string]struct{ text, field, problem string }{
		"nothing":             {``, "byte 0", "no JSON"},
		"cut":                 {`{"hook":{"token":"s3cr3t`, "byte 24", "no JSON"},
		"no JSON":             {`S3CR3T=x`, "byte 1", "no JSON"},
		"a list":              {`["s3cr3t"]`, "the top", "must be an object"},
		"null":                {`null`, "hook.token", "missing or empty"},
		"no token":            {`{}`, "hook.token", "missing or empty"},
		"empty token":         {`{"hook":{"token":" "}}`, "hook.token", "missing or empty"},
		"a number":            {`{"hook":{"token":1234}}`, "hook.token", "must be a string"},
		"hook no object":      {`{"hook":"s3cr3t"}`, "hook", "must be an object"},
		"senders no list":     {with(`"trusted":{"senders":"s3cr3t"}`), "trusted.senders", "must be a list"},
		"an empty sender":     {with(`"trusted":{"senders":["ann",""]}`), "trusted.senders[1]", "no login"},
		"a sender of two":     {with(`"trusted":{"senders":["s3cr3t\nbob"]}`), "trusted.senders[0]", "no login"},
		"inject no string":    {with(`"inject":["s3cr3t"]`), "inject", "must be a string"},
		"inject too long":     {with(`"inject":"` + strings.Repeat("s3cr3t", MaxInject/6+1) + `"`), "inject", "16384 at most"},
		"cancel no bool":      {with(`"cancel_superseded":"yes"`), "cancel_superseded", "true or false"},
		"flavour":             {with(`"flavors":["default","s3cr3t/.."]`), "flavors[1]", "no flavour"},
		"key":                 {with(`"debug":{"keys":["s3cr3t"]}`), "debug.keys[0]", "no public SSH key"},
		"two keys in one":     {with(`"debug":{"keys":["` + sshKey + `\n` + sshKey + `"]}`), "debug.keys[0]", "no public SSH key"},
		"gitea no object":     {with(`"gitea":"https://s3cr3t"`), "gitea", "must be an object"},
		"gitea without URL":   {with(`"gitea":{"token":"s3cr3t"}`), "gitea.url", "forge"},
		"a path":              {with(`"gitea":{"url":"/s3cr3t"}`), "gitea.url", "forge"},
		"ssh":                 {with(`"github":{"url":"ssh://s3cr3t"}`), "github.url", "forge"},
		"a password":          {with(`"gitlab":{"url":"https://u:s3cr3t@x"}`), "gitlab.url", "forge"},
		"a query":             {with(`"forgejo":{"url":"https://x?s3cr3t"}`), "forgejo.url", "forge"},
		"a token of two":      {with(`"gitea":{"url":"https://x","token":"s3cr3t\n"}`), "gitea.token", "line break"},
		"two forges":          {with(`"gitea":{"url":"https://x"},"gitlab":{"url":"https://y"}`), "gitlab", "two forges"},
		"something after":     {albatros + `{"s3cr3t":1}`, fmt.Sprintf("byte %d", len(albatros)+1), "no JSON"},
		"deep":                {strings.Repeat("[", 20000), "byte 10001", "no JSON"},
		"what is no UTF-8 is": {"\xff", "byte 1", "no JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := parseJSON("albatros/key", repo, []byte(test.text))
			if r != nil {
				t.Errorf("%+v", r)
			}
			quiet(t, err, "albatros/key", test.field, test.problem)
		})
	}
}

func TestIsFlavor(t *testing.T) {
	for name, want := range map[string]bool{
		"default": true, "arm64-v8.1_x": true, strings.Repeat("x", 64): true,
		"": false, "-x": false, ".x": false, "..": false, "a/b": false, "a b": false, "ä": false, "a\n": false, strings.Repeat("x", 65): false,
	} {
		if IsFlavor(name) != want {
			t.Errorf("%q", name)
		}
	}
}

func TestTrust(t *testing.T) {
	r := &Repo{HookToken: "x", Trusted: []string{"ann", "Bob"}}
	for login, want := range map[string]bool{"ann": true, "Bob": true, "bob": false, "ANN": false, "": false, "ann ": false} {
		if r.IsTrusted(login) != want {
			t.Errorf("%q", login)
		}
	}
	if (*Repo)(nil).IsTrusted("ann") || (&Repo{Trusted: []string{""}}).IsTrusted("") {
		t.Error("nobody is trusted")
	}
	if !r.TokenIs("x") || r.TokenIs("X") || r.TokenIs("") || (&Repo{}).TokenIs("") || (*Repo)(nil).TokenIs("") {
		t.Error("tokens are taken that should not be")
	}
}

const document1 = `# ours
repositories:
  https://git.example.com/team/project.git:
    hook: {token: s3cr3t-h00k}
    gitea: {url: https://git.example.com, token: T0KEN}
    trusted: {senders: [ann, bob]}
    inject: |
      SECRET1=xx
      SECRET2=yy
    flavors: [default]
    cancel_superseded: true
    debug: {keys: ["` + sshKey + `"]}
  git@github.com:Acme/App.git:
    hook: {secret: x}
`

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "repositories.yaml")
	write(t, path, document1)
	f, err := NewFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if f.Len() != 2 || f.Name() != "the file "+path || f.Check(t.Context()) != nil {
		t.Errorf("%d of %s", f.Len(), f.Name())
	}
	r, err := f.Get(t.Context(), repo)
	if err != nil || r.URL != repo || !r.TokenIs("s3cr3t-h00k") || r.Forge.Token != "T0KEN" || string(r.Inject) != "SECRET1=xx\nSECRET2=yy\n" || !r.CancelSuperseded || len(r.DebugKeys) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	// The same repository by other names, and no other.
	for url, want := range map[string]string{
		"https://git.example.com/team/project":        repo,
		"ssh://git@git.example.com:2222/team/project": repo,
		"git@GIT.example.com:Team/Project.git":        repo,
		"https://github.com/acme/app":                 "git@github.com:Acme/App.git",
		"https://git.example.com/team/project2":       "",
		"https://evil.example.com/team/project.git":   "",
		"": "", "nonsense": "", "ext::sh -c x": "",
	} {
		r, err := f.Get(t.Context(), url)
		if want == "" && (!errors.Is(err, ErrUnknown) || r != nil) || want != "" && (err != nil || r.URL != want) {
			t.Errorf("%s: %+v, %v", url, r, err)
		}
	}
	// What was read holds while the file is wrong.
	write(t, path, "repositories: [")
	if err := f.Reload(); err == nil {
		t.Error("a file that is no YAML is taken")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := f.Reload(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := f.Get(t.Context(), repo); err != nil || f.Len() != 2 {
		t.Errorf("it was forgotten: %v", err)
	}
	write(t, path, "repositories:\n  https://x/y/z: {hook: {token: a}}\n")
	if err := f.Reload(); err != nil {
		t.Error(err)
	}
	if _, err := f.Get(t.Context(), repo); !errors.Is(err, ErrUnknown) || f.Len() != 1 {
		t.Errorf("what was taken out is still there: %v", err)
	}
	write(t, path, strings.Repeat("#", maxFile+1))
	if err := f.Reload(); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%v", err)
	}
}

// TestFileRefusals: a mistake is named by its line or field.
func TestFileRefusals(t *testing.T) {
	name := "repositories[\"https://x/y/z\"]."
	one := "repositories:\n  https://x/y/z:\n    hook: {token: s3cr3t}\n"
	for what, test := range map[string]struct{ text, field, problem string }{
		"empty":           {"", "repositories", "missing"},
		"comments":        {"# s3cr3t\n", "repositories", "missing"},
		"no YAML":         {"repositories: [s3cr3t", "line 1", "no YAML"},
		"a tab":           {"repositories:\n\ts3cr3t: x\n", "line 2", "no YAML"},
		"unknown key":     {one + "    triggers: s3cr3t\n", "line 4", "no key triggers"},
		"unknown inside":  {one + "    gitea: {uri: https://s3cr3t}\n", "line 4", "no key uri"},
		"unknown at top":  {"repos: {}\n", "line 1", "no key repos"},
		"another kind":    {one + "    trusted: [s3cr3t]\n", "line 4", "another kind"},
		"a list of them":  {"repositories: [s3cr3t]\n", "line 1", "another kind"},
		"no token":        {"repositories:\n  https://x/y/z: {}\n", name + "hook.token", "missing"},
		"a field":         {one + "    flavors: [a b]\n", name + "flavors[0]", "no flavour"},
		"no repository":   {"repositories:\n  nonsense: {hook: {token: s3cr3t}}\n", `repositories["nonsense"]`, "no URL of a repository"},
		"a helper of git": {"repositories:\n  'ext::sh -c x': {hook: {token: s3cr3t}}\n", `repositories["ext::sh -c x"]`, "URL of a repository"},
		"twice":           {one + "  https://x/y/z:\n    hook: {token: s3cr3t}\n", "line 4", "no YAML"},
		"one by two URLs": {one + "  git@x:Y/z.git:\n    hook: {token: s3cr3t}\n", "repositories", "two"},
	} {
		t.Run(what, func(t *testing.T) {
			all, err := parseYAML("r.yaml", []byte(test.text))
			if all != nil {
				t.Errorf("%+v", all)
			}
			quiet(t, err, "r.yaml", test.field, test.problem)
		})
	}
}

// TestYAMLBomb: aliases that multiply are refused, or cost nothing.
func TestYAMLBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "a%d: &a%d [", i+1, i+1)
		for range 9 {
			fmt.Fprintf(&b, "*a%d,", i)
		}
		b.WriteString("]\n")
	}
	if _, err := parseYAML("r.yaml", []byte(b.String())); err == nil {
		t.Error("it is taken")
	}
}

func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(albatros))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseJSON("k", repo, text)
		check(t, r, err)
	})
}

func FuzzParseYAML(f *testing.F) {
	f.Add([]byte(document1))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseYAML("k", text)
		if err != nil {
			check(t, nil, err)
		}
		for _, r := range all {
			check(t, r, nil)
		}
	})
}

// check wants a configuration that others need not look at again, or a *BadValue.
func check(t *testing.T, r *Repo, err error) {
	t.Helper()
	var bad *BadValue
	if err != nil && (!errors.As(err, &bad) || bad.Field == "" || bad.Problem == "" || r != nil) {
		t.Fatalf("%v", err)
	}
	if err != nil {
		return
	}
	if r.HookToken == "" && r.HookSecret == "" || len(r.Inject) > MaxInject || r.IsTrusted("") || strings.ContainsAny(r.Forge.Token, " \r\n") {
		t.Errorf("%+v", r)
	}
}
