package cmdline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// settled is a program whose Settings come from a function.
func settled(settings func([]Option, func(string) string) ([]Setting, error), run func(*Invocation) error) Program {
	return Program{
		Name: "settled",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "file"},
			&cli.StringFlag{Name: "name", Value: "none", Aliases: []string{"n"}},
			&cli.IntFlag{Name: "count", Value: 3},
			&cli.StringSliceFlag{Name: "word"},
			&cli.BoolFlag{Name: "loud", Category: "Noise"},
			&cli.StringFlag{Name: "must", Required: true},
		},
		Settings: settings,
		Run:      func(_ context.Context, in *Invocation) error { return run(in) },
	}
}

func settle(p Program, args ...string) (code int, stderr string) {
	var out, errs bytes.Buffer
	code = Run(context.Background(), p, append([]string{"settled"}, args...), strings.NewReader(""), &out, &errs)
	return code, errs.String()
}

// TestSettings: the command line is stronger than the environment, that than
// the settings, those than the default.
func TestSettings(t *testing.T) {
	t.Setenv("CONVERGE_SETTLED_COUNT", "5")
	given := []Setting{
		{"name", "of-file", "line 1 of f"}, {"count", "4", "line 2 of f"}, {"word", "a", "line 3 of f"}, {"word", "b,c", "line 4 of f"},
		{"must", "x", "line 5 of f"},
	}
	var named string
	var options []Option
	p := settled(func(known []Option, value func(string) string) ([]Setting, error) {
		options, named = known, value("file")
		return given, nil
	}, func(in *Invocation) error {
		got := fmt.Sprintf("%s %d %v %s", in.String("name"), in.Int("count"), in.StringSlice("word"), in.String("must"))
		if want := "of-file 5 [a b,c] x"; got != want {
			t.Errorf("the options are %s", got)
		}
		sources := map[string]string{}
		for _, e := range in.Effective() {
			sources[e.Name] = fmt.Sprint(e.Values, e.Source)
		}
		for name, want := range map[string]string{
			"file": "[here]the command line", "count": "[5]the environment variable CONVERGE_SETTLED_COUNT",
			"word": "[a b,c]line 4 of f", "loud": "[]",
		} {
			if sources[name] != want {
				t.Errorf("%s is %s, want %s", name, sources[name], want)
			}
		}
		if in.OnLine("name") || !in.OnLine("file") {
			t.Error("what the command line sets is told wrong")
		}
		// Later the settings are others, and one of them wrong.
		given = []Setting{{"must", "y", "line 1 of f"}, {"loud", "true", "line 2 of f"}}
		next, err := in.Reread(context.Background())
		if err != nil || next.String("must") != "y" || !next.Bool("loud") || next.String("name") != "none" || next.String("file") != "here" {
			t.Errorf("read again: %v", err)
		}
		if in.String("must") != "x" {
			t.Error("what was read before has changed")
		}
		given = []Setting{{"must", "y", "line 1 of f"}, {"count", "many", "line 2 of f"}} // though the variable is stronger
		if _, err := in.Reread(context.Background()); err == nil || !strings.Contains(err.Error(), `"many" of count in line 2 of f`) {
			t.Errorf("a wrong number: %v", err)
		}
		return nil
	})
	if code, stderr := settle(p, "--file", "here"); code != 0 || named != "here" {
		t.Errorf("exit %d, %s, the file %q", code, stderr, named)
	}
	at := slices.IndexFunc(options, func(o Option) bool { return o.Name == "count" })
	if at < 0 || !options[at].Plain || options[at].Default != "3" || options[at].List {
		t.Errorf("the options are %+v", options)
	}
}

func TestSettingsErrors(t *testing.T) {
	for name, test := range map[string]struct {
		settings []Setting
		err      error
		want     string
	}{
		"missing":  {nil, nil, "--must is missing"},
		"unknown":  {[]Setting{{"nam", "x", "line 1 of f"}}, nil, "line 1 of f: there is no option nam"},
		"an alias": {[]Setting{{"n", "x", "line 1 of f"}}, nil, "line 1 of f: there is no option n"},
		"error":    {nil, errors.New("no such file"), "no such file"},
	} {
		p := settled(func([]Option, func(string) string) ([]Setting, error) { return test.settings, test.err },
			func(*Invocation) error { t.Errorf("%s: it ran", name); return nil })
		if code, stderr := settle(p); code == 0 || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit %d, %s", name, code, stderr)
		}
	}
}
