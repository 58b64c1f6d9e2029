package cmdline

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// everyKind has an option of each type in the table of newOption.
func everyKind() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "bool", Value: true}, &cli.StringFlag{Name: "string"}, &cli.PathFlag{Name: "path"},
		&cli.DurationFlag{Name: "duration"}, &cli.IntFlag{Name: "int"}, &cli.Int64Flag{Name: "int64"},
		&cli.UintFlag{Name: "uint"}, &cli.Uint64Flag{Name: "uint64"}, &cli.Float64Flag{Name: "float64"},
		&cli.StringSliceFlag{Name: "strings"}, &cli.IntSliceFlag{Name: "ints"}, &cli.Int64SliceFlag{Name: "int64s"},
		&cli.UintSliceFlag{Name: "uints"}, &cli.Uint64SliceFlag{Name: "uint64s"}, &cli.Float64SliceFlag{Name: "float64s"},
	}
}

func TestEveryKind(t *testing.T) {
	values := map[string]string{
		"bool": "false", "string": "a,b", "path": "/x,y", "duration": "1m30s", "int": "-1", "int64": "-2", "uint": "3", "uint64": "4",
		"float64": "0.5", "strings": "a,b\nc", "ints": "-1\n2", "int64s": "-3\n4", "uints": "5\n6", "uint64s": "7\n8", "float64s": "1.5\n2",
	}
	want := "false a,b /x,y 1m30s -1 -2 3 4 0.5 [a,b c] [-1 2] [-3 4] [5 6] [7 8] [1.5 2]"
	var args []string
	for name, value := range values {
		for v := range strings.SplitSeq(value, "\n") {
			args = append(args, "--"+name+"="+v)
		}
	}
	run := func(args ...string) (string, int, string) {
		var got string
		p := Program{Name: "kinds", Flags: everyKind(), Run: func(_ context.Context, in *Invocation) error {
			got = fmt.Sprint(in.Bool("bool"), " ", in.String("string"), " ", in.Path("path"), " ", in.Duration("duration"), " ", in.Int("int"), " ",
				in.Int64("int64"), " ", in.Uint("uint"), " ", in.Uint64("uint64"), " ", in.Float64("float64"), " ", in.StringSlice("strings"), " ",
				in.IntSlice("ints"), " ", in.Int64Slice("int64s"), " ", in.UintSlice("uints"), " ", in.Uint64Slice("uint64s"), " ", in.Float64Slice("float64s"))
			return nil
		}}
		var stderr bytes.Buffer
		code := Run(t.Context(), p, append([]string{"kinds"}, args...), nil, &bytes.Buffer{}, &stderr)
		return got, code, stderr.String()
	}
	if got, code, stderr := run(args...); got != want || code != 0 {
		t.Errorf("from the command line: %d, %s\n%s, want\n%s", code, stderr, got, want)
	}
	for name, value := range values {
		t.Setenv(EnvVars("kinds", name)[0], value)
	}
	if got, code, stderr := run(); got != want || code != 0 {
		t.Errorf("from the environment: %d, %s\n%s, want\n%s", code, stderr, got, want)
	}
	for _, f := range everyKind() {
		name := f.Names()[0]
		if strings.HasPrefix(name, "string") || name == "path" {
			continue
		}
		if _, code, stderr := run("--" + name + "=wrong"); code != 2 || !strings.Contains(stderr, " of the option --"+name+" is not ") {
			t.Errorf("a wrong --%s: %d, %q", name, code, stderr)
		}
		t.Setenv(EnvVars("kinds", name)[0], "wrong")
		if _, code, stderr := run(); code != 2 || !strings.Contains(stderr, EnvVars("kinds", name)[0]) {
			t.Errorf("a wrong variable for --%s: %d, %q", name, code, stderr)
		}
		t.Setenv(EnvVars("kinds", name)[0], "")
	}
}

func TestFlagOutsideTheTable(t *testing.T) {
	defer func() {
		if r := recover(); r != "cmdline: flags of type *cli.GenericFlag are not in the table of newOption" {
			t.Errorf("recovered %v", r)
		}
	}()
	newOption(&cli.GenericFlag{Name: "x"})
	t.Error("no panic")
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 10 * time.Second: "10s", 10 * time.Minute: "10m", 6 * time.Hour: "6h", 90 * time.Minute: "1h30m",
		time.Hour + time.Second: "1h0m1s", 30 * time.Minute: "30m", 500 * time.Millisecond: "500ms",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
