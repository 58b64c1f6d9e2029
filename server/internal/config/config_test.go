package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/files"
)

var keys = []Key{
	{Option: cmdline.Option{Name: "listen", Usage: "where to listen", Default: ":8080"}},
	{Option: cmdline.Option{Name: "debug-listen"}},
	{Option: cmdline.Option{Name: "max-connections", Default: "4096", Plain: true, Category: "Limits"}},
	{Option: cmdline.Option{Name: "drain", Default: "0s", Plain: true, Category: "Limits"}},
	{Option: cmdline.Option{Name: "debug-public", Plain: true, Category: "Limits"}},
	{Option: cmdline.Option{Name: "trusted-proxy", List: true}},
	{Option: cmdline.Option{Name: "token"}, Not: "it goes with --check"},
}

func TestParse(t *testing.T) {
	settings, err := Parse([]byte("# a comment\nlisten: :9000\nmax-connections: 12\ndrain: 10s\ndebug-public: true\ntrusted-proxy:\n  - 10.0.0.0/8\n  - \"::1\"\ndebug-listen: ''\n"), "f", keys)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(settings)
	if want := "[{listen :9000 line 2 of f} {max-connections 12 line 3 of f} {drain 10s line 4 of f} {debug-public true line 5 of f} {trusted-proxy 10.0.0.0/8 line 7 of f} {trusted-proxy ::1 line 8 of f} {debug-listen  line 9 of f}]"; got != want {
		t.Errorf("got %s", got)
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "{}"} {
		if settings, err := Parse([]byte(text), "f", keys); err != nil || len(settings) > 0 {
			t.Errorf("%q: %v, %v", text, settings, err)
		}
	}
	if settings, err := Parse([]byte("trusted-proxy: 10.0.0.1"), "f", keys); err != nil || len(settings) != 1 {
		t.Errorf("one value for a list: %v, %v", settings, err)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"lisen: x":                       `line 1: the key "lisen" is not known: perhaps you mean listen`,
		"listen: x\nmax_connections: 1":  `line 2: the key "max_connections" is not known: perhaps you mean max-connections`,
		"--drain: 1s":                    "perhaps you mean drain",
		"Debug-Listen: x":                "perhaps you mean debug-listen",
		"something-else: x":              `the key "something-else" is not known: server --print-config shows all keys`,
		"tokne: x":                       "server --print-config shows all keys", // not what may not be there
		"token: secret":                  "line 1: token is no setting: it goes with --check",
		"listen: a\nlisten: b":           "line 2: listen is there twice: the first time in line 1",
		"listen: [a, b]":                 "listen must be one value",
		"listen: {a: b}":                 "listen must be one value",
		"listen:":                        "line 1: listen has no value",
		"listen: ~":                      "has no value",
		"trusted-proxy: [[a]]":           "must be a value or a list",
		"trusted-proxy: [~]":             "has no value",
		"trusted-proxy: {a: b}":          "must be a value or a list",
		"a: &x [1]\n":                    `"a" is not known`,
		"listen: &x a\ndebug-listen: *x": "debug-listen must be one value",
		"[a]: b":                         "lines of OPTION: VALUE",
		"- a":                            "lines of OPTION: VALUE",
		"word":                           "lines of OPTION: VALUE",
		"listen: a\n---\nlisten: b":      "second document",
		"listen: a: b":                   "it is no YAML",
		"\t":                             "it is no YAML",
		"trusted-proxy: [" + strings.Repeat("a,", maxList) + "a]": "more than 1024 values",
	} {
		if _, err := Parse([]byte(text), "f", keys); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "server.yaml")
	if _, err := Load(path, keys); err == nil || !strings.Contains(err.Error(), "cannot read the configuration") {
		t.Errorf("no file: %v", err)
	}
	for text, want := range map[string]string{"listne: x": "cannot use the configuration " + path + ": line 1", strings.Repeat("#", maxFile+1): "is larger than 1024 KiB"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, keys); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
}

// TestLoadAgain: a file that is emptied, or no file any more, is a mistake.
func TestLoadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.yaml")
	var f File
	for _, step := range []struct{ text, want string }{
		{"# none yet", ""}, {"", ""}, {"listen: :1", ""}, {"", "it has no option any more"}, {"# none", "it has no option any more"}, {"listen: :2", ""},
	} {
		if err := os.WriteFile(path, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Load(path, keys); step.want == "" && err != nil || step.want != "" && (err == nil || !strings.Contains(err.Error(), step.want)) {
			t.Errorf("%q: %v, want %q", step.text, err, step.want)
		}
	}
	if _, err := f.Load(filepath.Dir(path), keys); !errors.Is(err, files.ErrNotRegular) {
		t.Errorf("a folder: %v", err)
	}
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{"listen": "listen", "lsten": "listen", "listener": "listen", "debug": "", "x": "", "": "", "trusted-proxies": "trusted-proxy"} {
		if got := nearest(word, keys); got != want {
			t.Errorf("%q is near %q, want %q", word, got, want)
		}
	}
}

// TestPrint: what is printed is read as the same again, whatever the values are.
func TestPrint(t *testing.T) {
	values := []string{":9000", "true", "", "a: b", "#", "'", "\"", "10", "~", "- x", "multi\nline", "*", "{", "é", " x "}
	var effective []cmdline.Effective
	for _, k := range keys {
		e := cmdline.Effective{Option: k.Option}
		switch k.Name {
		case "listen":
			e.Values, e.Source = values[:1], "the command line"
		case "trusted-proxy":
			e.Values, e.Source = values, "line 3 of f"
		case "drain":
			e.Values, e.Source = []string{"10s"}, "line 4 of f"
		case "token":
			e.Values, e.Source = []string{"secret"}, "the command line"
		}
		effective = append(effective, e)
	}
	var out bytes.Buffer
	if err := Print(&out, "What holds", effective, keys); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# What holds\n", "# where to listen\nlisten: :9000 # the command line\n", "# max-connections: 4096\n", "# debug-public: false\n", "drain: 10s # line 4 of f\n", "#### Limits\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Error("it prints a secret")
	}
	settings, err := Parse(out.Bytes(), "f", keys)
	if err != nil {
		t.Fatalf("%v in\n%s", err, &out)
	}
	var got []string
	for _, s := range settings {
		if s.Name == "trusted-proxy" {
			got = append(got, s.Value)
		}
	}
	if !slices.Equal(got, values) {
		t.Errorf("read again are %q, want %q, in\n%s", got, values, &out)
	}
	// Without the marks in front of the defaults it is a file, too.
	if _, err := Parse([]byte(strings.ReplaceAll(out.String(), "# max-connections", "max-connections")), "f", keys); err != nil {
		t.Error(err)
	}
	if got := scalar(keys[0].Option, "https://user:secret@example.org"); strings.Contains(got, "secret") {
		t.Errorf("it prints %s", got)
	}
}

// FuzzParse: what is taken has known names only, and never more of a single
// value than one.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		settings, err := Parse(text, "f", keys)
		if err != nil {
			return
		}
		count := map[string]int{}
		for _, s := range settings {
			at := slices.IndexFunc(keys, func(k Key) bool { return k.Name == s.Name })
			if at < 0 || keys[at].Not != "" {
				t.Fatalf("it took %+v", s)
			}
			if count[s.Name]++; count[s.Name] > 1 && !keys[at].List {
				t.Fatalf("%s is there twice", s.Name)
			}
		}
	})
}
