package cmdline_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/cmdline"
)

// A subcommand is chosen by the first argument alone, and has its own options.
func TestCommands(t *testing.T) {
	var ran string
	leaf := func(name string) cmdline.Program {
		return cmdline.Program{
			Name: name, Usage: "does " + name, ArgsUsage: "THING",
			Flags: []cli.Flag{&cli.BoolFlag{Name: "loud"}},
			Run: func(_ context.Context, in *cmdline.Invocation) error {
				ran = name + " " + strings.Join(in.Args, ",")
				if in.Bool("loud") {
					ran += "!"
				}
				return nil
			},
		}
	}
	p := leaf("tool")
	p.Commands = []cmdline.Program{leaf("go"), leaf("stop")}
	for _, test := range []struct {
		args []string
		code int
		ran  string
		says string // on either stream
	}{
		{[]string{"go", "there", "--loud"}, 0, "go there!", ""},
		{[]string{"stop"}, 0, "stop ", ""},
		{[]string{"x", "go"}, 0, "tool x,go", ""},
		{[]string{"--loud", "go"}, 0, "tool go!", ""},
		{[]string{"go", "--quiet"}, 2, "", "tool go: unknown option --quiet; try 'tool go --help'"},
		{[]string{"go", "--help"}, 0, "", "tool go [options] THING"},
		{[]string{"--help"}, 0, "", "  go THING                does go\n  stop THING              does stop\n"},
		{nil, 0, "tool ", ""},
	} {
		ran = ""
		var out bytes.Buffer
		code := cmdline.Run(t.Context(), p, append([]string{"tool"}, test.args...), nil, &out, &out)
		if code != test.code || ran != test.ran || !strings.Contains(out.String(), test.says) {
			t.Errorf("%q: exit code %d, ran %q, said %q", test.args, code, ran, &out)
		}
	}
}
