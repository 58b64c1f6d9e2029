package cmdline

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	if program := os.Getenv(programVariable); program != "" {
		Main(signalProgram(program))
	}
	goleak.VerifyTestMain(m)
}

// programVariable makes this test binary run signalProgram instead.
const programVariable = "CMDLINE_TEST_PROGRAM"

// signalProgram is what TestMainFunction runs in a process of its own: it says
// a line when it is ready for a signal, a stuck one does not end by it, and a
// peaceful one only by the third.
func signalProgram(name string) Program {
	return Program{Name: name, Run: func(ctx context.Context, in *Invocation) error {
		if name == "failing" {
			return errors.New("it failed")
		}
		if name == "peaceful" {
			EndInPeace(ctx)
			caught := make(chan os.Signal, 3)
			signal.Notify(caught, syscall.SIGTERM, os.Interrupt)
			for range 3 {
				fmt.Fprintln(in.Stdout, "ready")
				<-caught
			}
			<-ctx.Done()
			return nil
		}
		fmt.Fprintln(in.Stdout, "ready")
		<-ctx.Done()
		if name == "stuck" {
			fmt.Fprintln(in.Stdout, "still here")
			select {}
		}
		return nil
	}}
}

// sample has an option of every kind that programs use.
func sample(run func(ctx context.Context, in *Invocation) error) Program {
	return Program{
		Name:        "sample",
		Usage:       "show what a command line can hold",
		ArgsUsage:   "ws[s]://HOST/agent/ID [-- COMMAND...]\n--id ID ws[s]://HOST",
		Description: "It takes a URL and runs until it is told to stop.\nA second line explains more.",
		Flags: append(append([]cli.Flag{
			&cli.StringFlag{Name: "id", Usage: "register as `ID`; a random one if none is given"},
			&cli.DurationFlag{Name: "expiry", Aliases: []string{"e"}, Value: 10 * time.Minute,
				Usage: "end after this long without activity"},
			&cli.IntFlag{Name: "count", Value: 3, Usage: "how many"},
			&cli.BoolFlag{Name: "keep", Usage: "stay after the last logout"},
			&cli.StringSliceFlag{Name: "key", Usage: "let the owner of this public `KEY` in"},
			&cli.StringFlag{Name: "timeout-exit-code-with-a-long-name", DefaultText: "none",
				Usage: "an option whose name leaves no room beside it", EnvVars: []string{"OTHER_NAME"}},
			&cli.StringFlag{Name: "secret-door", Hidden: true},
		}, ConnectFlags("sample")...), LogFlags("sample")...),
		Run: run,
	}
}

// result is what a run of sample did.
type result struct {
	code           int
	stdout, stderr string
	in             *Invocation // nil if Run was not called
}

func try(t *testing.T, args ...string) result {
	t.Helper()
	var r result
	var stdout, stderr bytes.Buffer
	p := sample(func(_ context.Context, in *Invocation) error { r.in = in; return nil })
	r.code = Run(t.Context(), p, append([]string{"sample"}, args...), strings.NewReader(""), &stdout, &stderr)
	r.stdout, r.stderr = stdout.String(), stderr.String()
	return r
}

func TestArguments(t *testing.T) {
	for _, test := range []struct {
		name string
		line []string
		want string // show() of the invocation
	}{
		{"nothing", nil, `id="" expiry=10m0s count=3 keep=false key=[] args=[] tail=[] false`},
		{"option before the argument", []string{"--id", "a", "url"}, `id="a" expiry=10m0s count=3 keep=false key=[] args=["url"] tail=[] false`},
		{"option after the argument", []string{"url", "--id", "a"}, `id="a" expiry=10m0s count=3 keep=false key=[] args=["url"] tail=[] false`},
		{"options between arguments", []string{"one", "--keep", "two", "-e=5m", "three"},
			`id="" expiry=5m0s count=3 keep=true key=[] args=["one" "two" "three"] tail=[] false`},
		{"alias and one dash", []string{"-e", "5m", "-count=7"}, `id="" expiry=5m0s count=7 keep=false key=[] args=[] tail=[] false`},
		{"alias and name, the last wins", []string{"-e", "5m", "--expiry", "6m"}, `id="" expiry=6m0s count=3 keep=false key=[] args=[] tail=[] false`},
		{"bool does not eat the next", []string{"--keep", "false"}, `id="" expiry=10m0s count=3 keep=true key=[] args=["false"] tail=[] false`},
		{"bool with a value", []string{"--keep=false"}, `id="" expiry=10m0s count=3 keep=false key=[] args=[] tail=[] false`},
		{"negative value", []string{"--count", "-4", "--expiry", "-5m"}, `id="" expiry=-5m0s count=-4 keep=false key=[] args=[] tail=[] false`},
		{"empty value", []string{"--id=", "url"}, `id="" expiry=10m0s count=3 keep=false key=[] args=["url"] tail=[] false`},
		{"value that looks like an option", []string{"--id=--keep"}, `id="--keep" expiry=10m0s count=3 keep=false key=[] args=[] tail=[] false`},
		{"equals sign in a value", []string{"--id=a=b"}, `id="a=b" expiry=10m0s count=3 keep=false key=[] args=[] tail=[] false`},
		{"comma is no separator", []string{"--key", "a,b", "--key", "c, d"}, `id="" expiry=10m0s count=3 keep=false key=["a,b" "c, d"] args=[] tail=[] false`},
		{"one dash is an argument", []string{"-", "--keep"}, `id="" expiry=10m0s count=3 keep=true key=[] args=["-"] tail=[] false`},
		{"empty argument", []string{""}, `id="" expiry=10m0s count=3 keep=false key=[] args=[""] tail=[] false`},
		{"help is no command", []string{"help", "h"}, `id="" expiry=10m0s count=3 keep=false key=[] args=["help" "h"] tail=[] false`},
		{"argument named as an option", []string{"id", "keep"}, `id="" expiry=10m0s count=3 keep=false key=[] args=["id" "keep"] tail=[] false`},
		{"dashes without arguments before", []string{"--", "--keep"}, `id="" expiry=10m0s count=3 keep=false key=[] args=[] tail=["--keep"] true`},
		{"dashes after arguments", []string{"url", "--", "make", "--", "-x"}, `id="" expiry=10m0s count=3 keep=false key=[] args=["url"] tail=["make" "--" "-x"] true`},
		{"dashes at the end", []string{"url", "--"}, `id="" expiry=10m0s count=3 keep=false key=[] args=["url"] tail=[] true`},
		{"help in the tail", []string{"--", "--help"}, `id="" expiry=10m0s count=3 keep=false key=[] args=[] tail=["--help"] true`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := try(t, test.line...)
			if r.code != 0 || r.in == nil {
				t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
			}
			in := r.in
			got := fmt.Sprintf("id=%q expiry=%v count=%d keep=%v key=%q args=%q tail=%q %v", in.String("id"),
				in.Duration("expiry"), in.Int("count"), in.Bool("keep"), in.StringSlice("key"), in.Args, in.Tail, in.HasTail)
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if r.stdout+r.stderr != "" {
				t.Errorf("unasked output: %q %q", r.stdout, r.stderr)
			}
		})
	}
}

func TestUsageErrors(t *testing.T) {
	for _, test := range []struct {
		name string
		line []string
		want string
	}{
		{"unknown option", []string{"--exipry", "5m"}, "unknown option --exipry"},
		{"unknown option after an argument", []string{"url", "--nope"}, "unknown option --nope"},
		{"unknown option with a value", []string{"--passwrod=hunter2"}, "unknown option --passwrod"},
		{"unknown short options", []string{"-xe"}, "unknown option -xe"},
		{"negative number", []string{"-1"}, "unknown option -1"},
		{"three dashes", []string{"---id"}, "unknown option ---id"},
		{"option without a name", []string{"--=x"}, "unknown option --"},
		{"control characters", []string{"--a\x1b[31m\nb"}, "unknown option --a?[31m b"},
		{"value missing at the end", []string{"url", "--id"}, "the option --id needs a value"},
		{"value missing before the dashes", []string{"--id", "--", "x"}, "the option --id needs a value"},
		{"value missing before an option", []string{"--id", "--keep"}, "the option --id needs a value"},
		{"value missing, alias", []string{"-e"}, "the option --expiry needs a value"},
		{"bad duration", []string{"--expiry", "soon"}, `the value "soon" of the option --expiry is not a duration such as 30s, 10m or 1h30m`},
		{"bad number", []string{"--count=2.5"}, `the value "2.5" of the option --count is not a whole number`},
		{"bad bool", []string{"--keep=maybe"}, `the value of the option --keep is not true or false`},
		{"mistake before help", []string{"--nope", "--help"}, "unknown option --nope"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := try(t, test.line...)
			want := "sample: " + test.want + "; try 'sample --help'\n"
			if r.code != ExitUsage || r.stderr != want || r.stdout != "" || r.in != nil {
				t.Errorf("exit code %d, stdout %q, stderr\n%q, want\n%q", r.code, r.stdout, r.stderr, want)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	t.Run("every option", func(t *testing.T) {
		t.Setenv("CONVERGE_SAMPLE_ID", "from env")
		t.Setenv("CONVERGE_SAMPLE_EXPIRY", "7m")
		t.Setenv("CONVERGE_SAMPLE_COUNT", "9")
		t.Setenv("CONVERGE_SAMPLE_KEEP", "true")
		t.Setenv("CONVERGE_SAMPLE_KEY", "a,b\n\nc\n")
		t.Setenv("OTHER_NAME", "x")
		in := try(t).in
		if in.String("id") != "from env" || in.Duration("expiry") != 7*time.Minute || in.Duration("e") != 7*time.Minute ||
			in.Int("count") != 9 || !in.Bool("keep") || in.String("timeout-exit-code-with-a-long-name") != "x" {
			t.Error("a value was not taken")
		}
		if got := fmt.Sprintf("%q", in.StringSlice("key")); got != `["a,b" "c"]` {
			t.Errorf("list: %s", got)
		}
	})
	t.Run("the command line wins", func(t *testing.T) {
		t.Setenv("CONVERGE_SAMPLE_ID", "env")
		t.Setenv("CONVERGE_SAMPLE_EXPIRY", "not even a duration")
		t.Setenv("CONVERGE_SAMPLE_KEY", "env")
		in := try(t, "--id", "line", "-e", "1m", "--key", "line").in
		if in == nil || in.String("id") != "line" || len(in.StringSlice("key")) != 1 || in.StringSlice("key")[0] != "line" {
			t.Error("the environment was preferred")
		}
	})
	t.Run("empty is unset", func(t *testing.T) {
		for _, name := range []string{"ID", "EXPIRY", "COUNT", "KEEP", "KEY", "HEADER"} {
			t.Setenv("CONVERGE_SAMPLE_"+name, "")
		}
		in := try(t).in
		if in == nil || in.IsSet("id") || in.Duration("expiry") != 10*time.Minute || len(in.StringSlice("key")) != 0 {
			t.Error("an empty variable was taken for a value")
		}
	})
	for name, kind := range map[string]string{
		"EXPIRY": "a duration such as 30s, 10m or 1h30m", "COUNT": "a whole number", "KEEP": "true or false",
	} {
		t.Run("bad "+name, func(t *testing.T) {
			t.Setenv("CONVERGE_SAMPLE_"+name, "abc")
			r := try(t)
			shown := `the value "abc" of`
			if name == "KEEP" {
				shown = "the value of"
			}
			want := "sample: " + shown + " the environment variable CONVERGE_SAMPLE_" + name + " is not " + kind + "; try 'sample --help'\n"
			if r.code != ExitUsage || r.stderr != want || r.stdout != "" {
				t.Errorf("exit code %d, stderr %q, want %q", r.code, r.stderr, want)
			}
		})
	}
	t.Run("no memory of an earlier run", func(t *testing.T) {
		var got []string
		p := sample(func(_ context.Context, in *Invocation) error { got = append(got, in.String("id")); return nil })
		run := func() { Run(t.Context(), p, []string{"sample"}, nil, &bytes.Buffer{}, &bytes.Buffer{}) }
		t.Setenv("CONVERGE_SAMPLE_ID", "first")
		run()
		t.Setenv("CONVERGE_SAMPLE_ID", "")
		run()
		if fmt.Sprintf("%q", got) != `["first" ""]` {
			t.Errorf("got %q", got)
		}
	})
	t.Run("names", func(t *testing.T) {
		if got := EnvVars("agent", "max-duration"); len(got) != 1 || got[0] != "CONVERGE_AGENT_MAX_DURATION" {
			t.Errorf("got %q", got)
		}
		if got := EnvVars("agent hold", "id"); got[0] != "CONVERGE_AGENT_HOLD_ID" {
			t.Errorf("got %q", got)
		}
	})
}

func TestRequired(t *testing.T) {
	p := Program{Name: "needy", Flags: []cli.Flag{&cli.StringFlag{Name: "id", Required: true}},
		Run: func(context.Context, *Invocation) error { return nil }}
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), p, []string{"needy"}, nil, &stdout, &stderr)
	if want := "needy: the option --id is missing; try 'needy --help'\n"; code != 2 || stderr.String() != want || stdout.Len() != 0 {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, &stdout, &stderr)
	}
	t.Setenv("CONVERGE_NEEDY_ID", "x")
	if code := Run(t.Context(), p, []string{"needy"}, nil, &stdout, &stderr); code != 0 {
		t.Errorf("exit code %d with the variable set", code)
	}
}

func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		name   string
		err    error
		code   int
		stderr string
	}{
		{"nil", nil, 0, ""},
		{"plain", errors.New("cannot reach the server"), 1, "p: cannot reach the server\n"},
		{"several lines", errors.New("one\n two\x07"), 1, "p: one two?\n"},
		{"usage", Usagef("no such port: %w", os.ErrInvalid), 2, "p: no such port: invalid argument; try 'p --help'\n"},
		{"wrapped usage", fmt.Errorf("wrapped: %w", Usagef("x")), 2, "p: wrapped: x; try 'p --help'\n"},
		{"own code", Exit(17, errors.New("the job failed")), 17, "p: the job failed\n"},
		{"own code, silent", Exit(255, nil), 255, ""},
		{"own code, silent, wrapped", fmt.Errorf("wrapped: %w", Exit(3, nil)), 3, ""},
		{"success with a word", Exit(0, errors.New("nothing to do")), 0, "p: nothing to do\n"},
		{"cli's own exit error", cli.Exit("must not exit the process", 9), 1, "p: must not exit the process\n"},
		{"canceled", context.Canceled, 1, "p: context canceled\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			p := Program{Name: "p", Run: func(context.Context, *Invocation) error { return test.err }}
			code := Run(t.Context(), p, []string{"p"}, nil, &stdout, &stderr)
			if code != test.code || stderr.String() != test.stderr || stdout.Len() != 0 {
				t.Errorf("exit code %d, stdout %q, stderr %q", code, &stdout, &stderr)
			}
		})
	}
	if !errors.Is(Usagef("%w", os.ErrInvalid), os.ErrInvalid) || !errors.Is(Exit(1, os.ErrInvalid), os.ErrInvalid) {
		t.Error("an error cannot be unwrapped")
	}
}

func TestContextAndStreams(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "value")
	var stdout, stderr bytes.Buffer
	p := Program{Name: "p", Run: func(ctx context.Context, in *Invocation) error {
		if ctx.Value(key{}) != "value" || in.Context.Context.Value(key{}) != "value" {
			t.Error("the context did not come through")
		}
		fmt.Fprint(in.Stdout, "out")
		fmt.Fprint(in.Stderr, "err")
		return nil
	}}
	// No arguments at all, not even a name, is what an odd exec may give.
	if code := Run(ctx, p, nil, nil, &stdout, &stderr); code != 0 || stdout.String() != "out" || stderr.String() != "err" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, &stdout, &stderr)
	}
}

func TestUnknownOptionInTheProgram(t *testing.T) {
	defer func() {
		if r := recover(); r != `cmdline: p has no option "typo"` {
			t.Errorf("recovered %v", r)
		}
	}()
	p := Program{Name: "p", Run: func(_ context.Context, in *Invocation) error { in.String("typo"); return nil }}
	Run(t.Context(), p, []string{"p"}, nil, &bytes.Buffer{}, &bytes.Buffer{})
	t.Error("no panic")
}

func TestHelp(t *testing.T) {
	golden := filepath.Join("testdata", "help.golden")
	r := try(t, "url", "--help", "--nope")
	if r.code != 0 || r.stderr != "" || r.in != nil {
		t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
	}
	if *update {
		if err := os.WriteFile(golden, []byte(r.stdout), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.stdout; got != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("the help text is not that of %s (use -update):\n%s", golden, got)
	}
	for line := range strings.Lines(r.stdout) {
		if len(strings.TrimRight(line, "\n")) > helpWidth || strings.HasSuffix(line, " \n") {
			t.Errorf("badly laid out: %q", line)
		}
	}
	if short := try(t, "-h"); short.stdout != r.stdout || short.code != 0 {
		t.Error("-h is not --help")
	}
	if strings.Contains(r.stdout, "secret-door") {
		t.Error("a hidden option is shown")
	}
}

func TestVersion(t *testing.T) {
	r := try(t, "--version")
	want := fmt.Sprintf("sample %s (%s %s/%s)\n", Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if r.code != 0 || r.stdout != want || r.stderr != "" || r.in != nil {
		t.Errorf("exit code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

// brokenWriter is a closed stdout.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestBrokenStdout(t *testing.T) {
	for _, ask := range []string{"--help", "--version"} {
		var stderr bytes.Buffer
		code := Run(t.Context(), sample(nil), []string{"sample", ask}, nil, brokenWriter{}, &stderr)
		if code != 1 || stderr.String() != "sample: cannot write the output: file already closed\n" {
			t.Errorf("%s: exit code %d, stderr %q", ask, code, &stderr)
		}
	}
}
