package cmdline

import (
	"slices"
	"strings"
)

// What the command line asks for instead of running.
const (
	askNothing = iota
	askHelp
	askVersion
)

// setting is an option with its value, and where that stands.
type setting struct {
	option *option
	value  string
	source string
}

// onCommandLine is the source of what the command line sets.
const onCommandLine = "the command line"

// commandLine is what the arguments and the environment say.
type commandLine struct {
	values  []setting
	args    []string
	tail    []string
	hasTail bool
	ask     int
}

// parse separates options from positional arguments. It works from left to
// right and stops at the first mistake, or where it is asked for help.
func parse(opts options, args []string) (commandLine, error) {
	line := commandLine{args: []string{}}
	if i := slices.Index(args, "--"); i >= 0 {
		line.tail, line.hasTail = args[i+1:], true
		args = args[:i]
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if !looksLikeOption(arg) {
			line.args = append(line.args, arg)
			continue
		}
		name, value, hasValue := splitOption(arg)
		o := opts.find(name)
		if o == nil {
			// Only the name: what follows the = may be a misplaced secret.
			written, _, _ := strings.Cut(arg, "=")
			return line, Usagef("unknown option %s", written)
		}
		switch {
		case hasValue:
		case o.boolean:
			value = "true"
		case len(args) == 0 || opts.isOption(args[0]):
			return line, Usagef("the option --%s needs a value", o.name())
		default:
			value, args = args[0], args[1:]
		}
		if err := o.check(value, "the option --"+o.name()); err != nil {
			return line, err
		}
		if ask := asks(o, value); ask != askNothing {
			line.ask = ask
			return line, nil
		}
		line.values = append(line.values, setting{o, value, onCommandLine})
	}
	return line, nil
}

// parseCut parses what is the program's own.
func parseCut(p Program, opts options, args []string) (commandLine, error) {
	if p.Cut == nil {
		return parse(opts, args)
	}
	own, tail := p.Cut(args)
	line, err := parse(opts, own)
	line.tail, line.hasTail = append(line.tail, tail...), true
	return line, err
}

// OnLine reports whether the command line itself sets the option, and not a
// variable or nobody.
func (in *Invocation) OnLine(name string) bool {
	return slices.ContainsFunc(in.set, func(s setting) bool { return s.option.name() == name })
}

// looksLikeOption tells options from positional arguments: "-" is one of the
// latter.
func looksLikeOption(arg string) bool {
	return len(arg) > 1 && arg[0] == '-'
}

// splitOption takes -x, --x, -x=v and --x=v apart.
func splitOption(arg string) (name, value string, hasValue bool) {
	return strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
}

// isOption reports whether arg is one of the program's options.
func (opts options) isOption(arg string) bool {
	if !looksLikeOption(arg) {
		return false
	}
	name, _, _ := splitOption(arg)
	return opts.find(name) != nil
}

func asks(o *option, value string) int {
	switch {
	case value != "true":
	case o.name() == helpName:
		return askHelp
	case o.name() == versionName:
		return askVersion
	}
	return askNothing
}

// addEnvironment sets what the command line left unset.
func (line *commandLine) addEnvironment(opts options, lookup func(string) (string, bool)) error {
	for _, o := range opts {
		if line.has(o) {
			continue
		}
		for _, variable := range o.env {
			text, _ := lookup(variable)
			if text == "" {
				continue
			}
			values := []string{text}
			if o.list {
				values = slices.DeleteFunc(strings.Split(text, "\n"),
					func(s string) bool { return strings.TrimSpace(s) == "" })
			}
			for _, value := range values {
				if err := o.check(value, "the environment variable "+variable); err != nil {
					return err
				}
				line.values = append(line.values, setting{o, value, "the environment variable " + variable})
			}
			break
		}
	}
	return nil
}

// has reports whether the option is set.
func (line *commandLine) has(o *option) bool {
	return slices.ContainsFunc(line.values, func(s setting) bool { return s.option == o })
}

// complete refuses what is still missing.
func (line *commandLine) complete(opts options) error {
	for _, o := range opts {
		if o.required && !line.has(o) {
			return Usagef("the option --%s is missing", o.name())
		}
	}
	return nil
}
