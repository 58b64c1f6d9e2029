package cmdline

import (
	"context"
	"os"
	"slices"
)

// Option is an option as another place where it can be set needs to know it.
type Option struct {
	// Name is without dashes.
	Name string
	// Usage explains it, without a full stop; Category is the heading that it
	// stands under, or empty.
	Usage, Category string
	// Default is the value that it has by itself, as --help shows it, or empty.
	Default string
	// List options have any number of values.
	List bool
	// Plain options are numbers, durations or switches: their values need no
	// quotes anywhere.
	Plain bool
}

// Setting is a value for an option. A list has one for each of its values.
type Setting struct {
	// Name is the option's, and Value as the command line would have it.
	Name, Value string
	// Source says where it stands, for messages: line 3 of FILE.
	Source string
}

// Effective is what an option has in the end.
type Effective struct {
	Option
	// Values are what was set, one but for lists; none stands for Default.
	Values []string
	// Source says where they stand; "" for the default.
	Source string
}

func (o *option) describeTo() Option {
	return Option{
		Name: o.name(), Usage: o.manual().Usage, Category: o.category, Default: o.value,
		List: o.list, Plain: o.kind != "",
	}
}

// addOthers sets what the command line left unset, from the environment and
// then from Settings, and refuses what is still missing. A value of Settings is
// checked even where another one is used.
func (line *commandLine) addOthers(p Program, opts options) error {
	if err := line.addEnvironment(opts, os.LookupEnv); err != nil {
		return err
	}
	if p.Settings == nil {
		return line.complete(opts)
	}
	var known []Option
	for _, o := range opts {
		known = append(known, o.describeTo())
	}
	settings, err := p.Settings(known, func(name string) string {
		value := ""
		for _, s := range line.values {
			if s.option.name() == name {
				value = s.value
			}
		}
		return value
	})
	if err != nil {
		return err
	}
	stronger := slices.Clone(line.values)
	for _, s := range settings {
		o := opts.find(s.Name)
		if o == nil || o.name() != s.Name {
			return Usagef("%s: there is no option %s", s.Source, s.Name)
		}
		if err := o.check(s.Value, s.Name+" in "+s.Source); err != nil {
			return err
		}
		if !slices.ContainsFunc(stronger, func(s setting) bool { return s.option == o }) {
			line.values = append(line.values, setting{o, s.Value, s.Source})
		}
	}
	return line.complete(opts)
}

// Effective returns what every option has in the end, in the order of --help.
func (in *Invocation) Effective() []Effective {
	var all []Effective
	for _, o := range in.opts {
		e := Effective{Option: o.describeTo()}
		for _, s := range in.line.values {
			if s.option != o {
				continue
			}
			if !o.list {
				e.Values = nil // the last one counts
			}
			e.Values, e.Source = append(e.Values, s.value), s.source
		}
		all = append(all, e)
	}
	return all
}

// Reread reads the environment and the Settings again, for a program that takes
// changes in while it runs. The command line is what it was.
func (in *Invocation) Reread(ctx context.Context) (*Invocation, error) {
	p := in.program
	opts := newOptions(p)
	next := &Invocation{
		Stdin: in.Stdin, Stdout: in.Stdout, Stderr: in.Stderr, onLine: map[string]string{}, // warned already
		program: p, opts: opts, argv: in.argv, Args: in.Args, Tail: in.Tail, HasTail: in.HasTail,
	}
	line, err := parseCut(p, opts, in.argv)
	if err != nil {
		return nil, err
	}
	next.set = slices.Clone(line.values)
	if err := line.addOthers(p, opts); err != nil {
		return nil, err
	}
	next.line = line
	p.Run = func(context.Context, *Invocation) error { return nil }
	return next, runApp(ctx, p, opts, line, next)
}
