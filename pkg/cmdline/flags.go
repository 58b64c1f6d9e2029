package cmdline

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// EnvVars names the environment variables of a program's option: for "agent"
// and "max-duration" that is CONVERGE_AGENT_MAX_DURATION.
func EnvVars(program, flag string) []string {
	upper := func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}
	return []string{strings.Map(upper, "CONVERGE_"+program+"_"+flag)}
}

// option is one flag of a program as this package needs to know it.
type option struct {
	flag cli.Flag // a copy: cli keeps values in it
	env  []string // the variables that set it, taken away from the copy
	// kind says what a value must be, for messages; empty if anything will do.
	kind string
	// placeholder stands for the value in --help unless the usage text has a
	// name in backquotes.
	placeholder string
	usage       string
	category    string
	value       string // the default, as --help shows it
	boolean     bool
	list        bool
	hidden      bool
	required    bool
}

// options are all flags of a program, in order.
type options []*option

// newOptions describes the flags of p, and --help and --version after them.
func newOptions(p Program) options {
	var opts options
	for _, f := range p.Flags {
		o := newOption(f)
		if len(o.env) == 0 {
			o.env = EnvVars(p.Name, o.name())
		}
		opts = append(opts, o)
	}
	return append(opts,
		newOption(&cli.BoolFlag{Name: helpName, Aliases: []string{"h"}, Usage: "show this help"}),
		newOption(&cli.BoolFlag{Name: versionName, Usage: "show the version"}))
}

const (
	helpName    = "help"
	versionName = "version"
)

// copied detaches a flag from its Program and takes its variables away, for
// this package reads them itself: cli takes an empty one for a value and says
// of a wrong one only half of what the user must know.
func copied[T any](f *T, env func(*T) *[]string) (*T, []string) {
	c := *f
	vars := *env(&c)
	*env(&c) = nil
	return &c, vars
}

// newOption is the one table of cli's flag types. GenericFlag and
// TimestampFlag are left out: their values are pointers that all runs of a
// program would share.
func newOption(f cli.Flag) *option {
	const (
		number  = "a whole number"
		natural = "a whole number that is not negative"
		decimal = "a number"
	)
	o := &option{placeholder: "VALUE"}
	switch f := f.(type) {
	case *cli.BoolFlag:
		o.flag, o.env = copied(f, func(f *cli.BoolFlag) *[]string { return &f.EnvVars })
		o.kind, o.boolean, o.placeholder = "true or false", true, ""
		if o.value = f.DefaultText; f.Value && o.value == "" {
			o.value = "true"
		}
	case *cli.StringFlag:
		o.flag, o.env = copied(f, func(f *cli.StringFlag) *[]string { return &f.EnvVars })
		o.value = either(f.DefaultText, f.Value)
	case *cli.PathFlag:
		o.flag, o.env = copied(f, func(f *cli.PathFlag) *[]string { return &f.EnvVars })
		o.placeholder, o.value = "FILE", either(f.DefaultText, f.Value)
	case *cli.DurationFlag:
		o.flag, o.env = copied(f, func(f *cli.DurationFlag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder = "a duration such as 30s, 10m or 1h30m", "DURATION"
		o.value = either(f.DefaultText, shortDuration(f.Value))
	case *cli.IntFlag:
		o.flag, o.env = copied(f, func(f *cli.IntFlag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder, o.value = number, "NUMBER", either(f.DefaultText, fmt.Sprint(f.Value))
	case *cli.Int64Flag:
		o.flag, o.env = copied(f, func(f *cli.Int64Flag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder, o.value = number, "NUMBER", either(f.DefaultText, fmt.Sprint(f.Value))
	case *cli.UintFlag:
		o.flag, o.env = copied(f, func(f *cli.UintFlag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder, o.value = natural, "NUMBER", either(f.DefaultText, fmt.Sprint(f.Value))
	case *cli.Uint64Flag:
		o.flag, o.env = copied(f, func(f *cli.Uint64Flag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder, o.value = natural, "NUMBER", either(f.DefaultText, fmt.Sprint(f.Value))
	case *cli.Float64Flag:
		o.flag, o.env = copied(f, func(f *cli.Float64Flag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder, o.value = decimal, "NUMBER", either(f.DefaultText, fmt.Sprint(f.Value))
	case *cli.StringSliceFlag:
		o.flag, o.env = copied(f, func(f *cli.StringSliceFlag) *[]string { return &f.EnvVars })
		o.list, o.value = true, either(f.DefaultText, f.GetValue())
	case *cli.IntSliceFlag:
		o.flag, o.env = copied(f, func(f *cli.IntSliceFlag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder, o.list, o.value = number, "NUMBER", true, either(f.DefaultText, f.GetValue())
	case *cli.Int64SliceFlag:
		o.flag, o.env = copied(f, func(f *cli.Int64SliceFlag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder, o.list, o.value = number, "NUMBER", true, either(f.DefaultText, f.GetValue())
	case *cli.UintSliceFlag:
		o.flag, o.env = copied(f, func(f *cli.UintSliceFlag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder, o.list, o.value = natural, "NUMBER", true, either(f.DefaultText, f.GetValue())
	case *cli.Uint64SliceFlag:
		o.flag, o.env = copied(f, func(f *cli.Uint64SliceFlag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder, o.list, o.value = natural, "NUMBER", true, either(f.DefaultText, f.GetValue())
	case *cli.Float64SliceFlag:
		o.flag, o.env = copied(f, func(f *cli.Float64SliceFlag) *[]string { return &f.EnvVars })
		o.kind, o.placeholder, o.list, o.value = decimal, "NUMBER", true, either(f.DefaultText, f.GetValue())
	default:
		panic(fmt.Sprintf("cmdline: flags of type %T are not in the table of newOption", f))
	}
	if doc, ok := f.(cli.DocGenerationFlag); ok {
		o.usage = doc.GetUsage()
	}
	if c, ok := f.(cli.CategorizableFlag); ok {
		o.category, o.hidden = c.GetCategory(), !c.IsVisible()
	}
	if r, ok := f.(cli.RequiredFlag); ok {
		o.required = r.IsRequired()
	}
	return o
}

func (o *option) name() string { return o.flag.Names()[0] }

// flags returns the copies, for cli.
func (opts options) flags() []cli.Flag {
	flags := make([]cli.Flag, len(opts))
	for i, o := range opts {
		flags[i] = o.flag
	}
	return flags
}

// find returns the option with that name or alias, or nil.
func (opts options) find(name string) *option {
	for _, o := range opts {
		for _, n := range o.flag.Names() {
			if n == name {
				return o
			}
		}
	}
	return nil
}

// check tries a value on a scratch set, so that a wrong one can be reported
// with its source. The value is shown, but for switches, which need none:
// options that parse hold no secrets.
func (o *option) check(value, source string) error {
	if o.kind == "" {
		return nil
	}
	scratch := flag.NewFlagSet("", flag.ContinueOnError)
	scratch.SetOutput(io.Discard)
	probe := newOption(o.flag).flag
	if err := probe.Apply(scratch); err != nil {
		return fmt.Errorf("cannot prepare the option --%s: %w", o.name(), err)
	}
	if err := scratch.Set(o.name(), value); err != nil {
		if o.boolean { // who gives it a value may take it for one with a secret
			return Usagef("the value of %s is not %s", source, o.kind)
		}
		return Usagef("the value %q of %s is not %s", value, source, o.kind)
	}
	return nil
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// shortDuration writes 10m where Go writes 10m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if short, ok := strings.CutSuffix(s, "m0s"); ok {
		s = short + "m"
	}
	if short, ok := strings.CutSuffix(s, "h0m"); ok {
		s = short + "h"
	}
	return s
}
