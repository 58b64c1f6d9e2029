package credential

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"example.com/converge/pkg/oidctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestGiven: a literal stays, a file is read again, and its loss is survived.
func TestGiven(t *testing.T) {
	get := func(s Source) string {
		t.Helper()
		token, err := s(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	if got := get(Given("a.b.c", "a.b.c")); got != "a.b.c" {
		t.Errorf("%q", got)
	}
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.b.c\n")
	source := Given("@"+file, "a.b.c")
	if got := get(source); got != "a.b.c" {
		t.Errorf("%q", got)
	}
	write("d.e.f\n")
	if got := get(source); got != "d.e.f" {
		t.Errorf("renewed: %q", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := get(source); got != "a.b.c" {
		t.Errorf("without its file: %q", got)
	}
	for _, bad := range []string{"hunter2", "a.b", "a.b.c.d", "a. b.c", "a.b." + strings.Repeat("x", maxToken)} {
		if _, err := Given(bad, bad)(t.Context()); err == nil || strings.Contains(err.Error(), bad) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestGitHub(t *testing.T) {
	issuer := oidctest.New(t)
	vars := issuer.GitHub(oidctest.Claims{"repository": "acme/widgets"})
	getenv := func(name string) string { return vars[name] }
	const audience = "wss://converge.example.org/a?b&c"
	source, err := GitHub(audience, getenv)
	if err != nil {
		t.Fatal(err)
	}
	var tokens [2]string
	for i := range tokens {
		if tokens[i], err = source(t.Context()); err != nil || strings.Count(tokens[i], ".") != 2 {
			t.Errorf("%q, %v", tokens[i], err)
		}
	}
	if tokens[0] == tokens[1] {
		t.Error("the second token is not a fresh one")
	}
	if asked := issuer.Asked(); len(asked) != 2 || asked[0] != audience {
		t.Errorf("asked for %q", asked)
	}

	issuer.Break(true)
	if _, err := source(t.Context()); err == nil || !strings.Contains(err.Error(), "it answered 500") {
		t.Errorf("of a broken one: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source(ctx); err == nil || strings.Contains(err.Error(), issuer.URL) {
		t.Errorf("the error shows the URL: %v", err)
	}
	vars[requestToken] = "hunter2"
	issuer.Break(false)
	if source, err = GitHub(audience, getenv); err != nil {
		t.Fatal(err)
	}
	if _, err := source(t.Context()); err == nil || !strings.Contains(err.Error(), "id-token: write") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("with a wrong secret: %v", err)
	}
}

// TestGitHubRefuses what is no request URL, or no answer.
func TestGitHubRefuses(t *testing.T) {
	for _, vars := range []map[string]string{
		{}, {requestURL: "https://ci.example.org"}, {requestToken: "x"},
		{requestURL: "http://ci.example.org", requestToken: "x"}, {requestURL: "ci", requestToken: "x"}, {requestURL: "https://%zz", requestToken: "x"},
	} {
		if _, err := GitHub("a", func(name string) string { return vars[name] }); err == nil {
			t.Errorf("%v is taken", vars)
		}
	}
	for _, body := range []string{"", "<html>", "{}", `{"value":"none"}`, `{"value":"` + strings.Repeat("a.", maxAnswer) + `"}`} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		source, err := GitHub("a", func(name string) string { return map[string]string{requestURL: server.URL, requestToken: "x"}[name] })
		if err != nil {
			t.Fatal(err)
		}
		if token, err := source(t.Context()); err == nil {
			t.Errorf("%.20q is taken for %.20q", body, token)
		}
		server.Close()
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the secret went elsewhere") }))
	defer elsewhere.Close()
	away := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer away.Close()
	source, err := GitHub("a", func(name string) string { return map[string]string{requestURL: away.URL, requestToken: "x"}[name] })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source(t.Context()); err == nil {
		t.Error("a redirect is taken")
	}
}
