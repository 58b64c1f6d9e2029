package cmdline

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Manual is what --help says, as data: for what lays it out in other ways, such
// as a manual page or a shell's completions.
type Manual struct {
	// Name is how the program is called; for a subcommand both words.
	Name string
	// Usage says in one line, without a full stop, what it is for.
	Usage string
	// Synopsis has the ways to call it, each with the Name in front.
	Synopsis []string
	// Description is free text whose lines stay as they are: those that are
	// indented are examples.
	Description string
	// Options are those that --help shows, in its order.
	Options []ManualOption
	// Commands are the subcommands, in order.
	Commands []Manual
	// Exits are the exit codes; none are those of this package.
	Exits []ManualExit
}

// ManualExit is what an exit code means.
type ManualExit struct {
	Code int
	// Meaning is a sentence.
	Meaning string
}

// ManualOption is one option of a Manual.
type ManualOption struct {
	// Names are its forms with their dashes, a short one first.
	Names []string
	// Placeholder stands for the value; a switch has none.
	Placeholder string
	// Usage explains it, without a full stop.
	Usage string
	// Category is the heading that it stands under; "Options" is the first.
	Category string
	// Default is the value that it has by itself, or empty.
	Default string
	// Env are the environment variables that set it.
	Env []string
	// Repeatable options take a list, Required ones must be given.
	Repeatable, Required bool
}

// Manual describes the program and its subcommands.
func (p Program) Manual() Manual {
	m := Manual{Name: p.Name, Usage: p.Usage, Synopsis: synopsis(p), Description: strings.Trim(p.Description, "\n")}
	opts := newOptions(p)
	for _, category := range opts.categories() {
		for _, o := range opts {
			if o.category == category && !o.hidden {
				m.Options = append(m.Options, o.manual())
			}
		}
	}
	for _, c := range p.Commands {
		c.Name = p.Name + " " + c.Name
		m.Commands = append(m.Commands, c.Manual())
	}
	return m
}

// synopsis has the ways to call the program.
func synopsis(p Program) []string {
	before := " [options] "
	if p.Cut != nil {
		before = " "
	}
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(p.ArgsUsage), "\n") {
		lines = append(lines, strings.TrimSpace(p.Name+before+strings.TrimSpace(line)))
	}
	return lines
}

// manual describes one option.
func (o *option) manual() ManualOption {
	m := ManualOption{
		Usage: o.usage, Category: heading(o.category), Default: o.value, Env: o.env,
		Repeatable: o.list, Required: o.required,
	}
	placeholder := o.placeholder
	if before, rest, ok := strings.Cut(m.Usage, "`"); ok {
		if name, after, ok := strings.Cut(rest, "`"); ok {
			placeholder, m.Usage = name, before+name+after
		}
	}
	if !o.boolean {
		m.Placeholder = placeholder
	}
	for _, name := range o.flag.Names() {
		dashes := "--"
		if utf8.RuneCountInString(name) == 1 {
			dashes = "-"
		}
		m.Names = append(m.Names, dashes+name)
	}
	slices.SortStableFunc(m.Names, func(a, b string) int { // -h before --help
		return min(len(a), 3) - min(len(b), 3)
	})
	return m
}

// heading is the title of a category.
func heading(category string) string {
	if category == "" {
		return "Options"
	}
	return category
}
