package clidoc

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/cmdline"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// sample has whatever the documents must lay out, and text that each of them
// could take for its own markup.
func sample() cmdline.Program {
	run := func(context.Context, *cmdline.Invocation) error { return nil }
	return cmdline.Program{
		Name: "sample", Usage: "shows it's [all] that: a command line can hold",
		ArgsUsage:   "ws[s]://HOST/ID [-- COMMAND...]\n--all",
		Description: "It takes a URL.\n.This line begins with a dot, and \\ is no escape.\n  sample 'one' | two\n\nA second paragraph.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Aliases: []string{"k"}, Usage: "private key `FILE`; it's *not* shown | ever: [never]"},
			&cli.StringFlag{Name: "record", Usage: "`DIR` for <files>"},
			&cli.StringSliceFlag{Name: "peer", Usage: "`NAME` of $HOME \"quoted\""},
			&cli.BoolFlag{Name: "quiet", Usage: "say `nothing`"},
			&cli.DurationFlag{Name: "wait", Usage: "how long", Value: 10e9, Category: "Time options"},
			&cli.BoolFlag{Name: "secret", Hidden: true},
		},
		Commands: []cmdline.Program{
			{Name: "start", Usage: "begins", Flags: []cli.Flag{&cli.StringFlag{Name: "from", Usage: "`FILE` to read"}}, Run: run},
			{Name: "stop", Usage: "ends: for good", Run: run},
		},
		Run: run,
	}
}

// documents are all kinds with their arguments.
var documents = map[string][]string{
	"sample.md": {"markdown"}, "sample.1": {"man", "v1.2.3", "2026-02-03"}, "sample.bash": {"bash"},
	"_sample": {"zsh"}, "sample.fish": {"fish"}, "sample.ps1": {"powershell"},
}

// TestGolden compares each document with the one in testdata, which people and
// the programs that read it have looked at.
func TestGolden(t *testing.T) {
	for name, args := range documents {
		var out, said bytes.Buffer
		if code := run(sample().Manual(), args, &out, &said); code != cmdline.ExitOK {
			t.Errorf("%s: exit code %d, %s", name, code, &said)
			continue
		}
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s is not as it was; go test -update rewrites it:\n%s", file, &out)
		}
		if strings.Contains(out.String(), "secret") {
			t.Errorf("%s shows a hidden option", name)
		}
	}
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"html"}, {"man"}, {"man", "v1", "today"}, {"bash", "zsh"}} {
		var out, said bytes.Buffer
		if code := run(sample().Manual(), args, &out, &said); code != cmdline.ExitUsage || out.Len() > 0 {
			t.Errorf("%q: exit code %d, %q", args, code, &out)
		}
	}
}

// TestBash completes command lines in a real bash.
func TestBash(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"id key", "id_other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "ideas"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		words []string
		want  []string
	}{
		{[]string{"s"}, []string{"start", "stop"}},
		{[]string{"--q"}, []string{"--quiet"}},
		{[]string{"--s"}, nil},
		{[]string{"ws://h/i", "-"}, []string{"--help", "--key", "--peer", "--quiet", "--record", "--version", "--wait", "-h", "-k"}},
		{[]string{"start", "--"}, []string{"--from", "--help", "--version"}},
		{[]string{"start", "--from", "id"}, []string{"id key", "id_other", "ideas"}},
		{[]string{"--from", "id"}, nil},
		{[]string{"--key", "id"}, []string{"id key", "id_other", "ideas"}},
		{[]string{"--key", "=", "id_"}, []string{"id_other"}},
		{[]string{"--key", "="}, []string{"id key", "id_other", "ideas"}},
		{[]string{"-k", "id_"}, []string{"id_other"}},
		{[]string{"--record", ""}, []string{"ideas"}},
		{[]string{"--peer", "id"}, nil},
		{[]string{"ws://h/i", "--", "id_"}, []string{"id_other"}},
	} {
		script := Bash(sample().Manual()) + `
COMP_WORDS=(sample "$@") COMP_CWORD=$#
_converge_sample
for word in "${COMPREPLY[@]}"; do printf '%s\n' "$word"; done
`
		cmd := exec.Command("bash", append([]string{"--norc", "-c", script, "bash"}, test.words...)...)
		cmd.Dir = dir
		// A complete PATH would give the machine's commands.
		cmd.Env = []string{"PATH=" + dir, "LC_ALL=C"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", test.words, err, out)
		}
		got := slices.Sorted(strings.SplitSeq(strings.TrimSpace(string(out)), "\n"))
		got = slices.DeleteFunc(got, func(s string) bool { return s == "" })
		if !slices.Equal(got, test.want) {
			t.Errorf("%q completes to %q, want %q", test.words, got, test.want)
		}
	}
}
