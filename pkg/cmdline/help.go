package cmdline

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Layout of --help, in columns.
const (
	helpWidth  = 80
	helpIndent = 2
	// helpColumn is where explanations begin; an option that reaches it gets
	// a line of its own.
	helpColumn = 26
)

// help lays the help text out: what the program is, how it is called, what
// there is to know, and its options by category, in the order given.
func help(p Program, opts options) string {
	var b strings.Builder
	b.WriteString(p.Name)
	if p.Usage != "" {
		b.WriteString(" - " + p.Usage)
	}
	b.WriteString("\n\nUsage:\n")
	before := " [options] "
	if p.Cut != nil {
		before = " "
	}
	for line := range strings.SplitSeq(strings.TrimSpace(p.ArgsUsage), "\n") {
		fmt.Fprintf(&b, "%*s%s\n", helpIndent, "",
			strings.TrimSpace(p.Name+before+strings.TrimSpace(line)))
	}
	if text := strings.Trim(p.Description, "\n"); text != "" {
		b.WriteString("\n" + text + "\n")
	}
	if len(p.Commands) > 0 {
		b.WriteString("\nCommands, each with its own --help:\n")
		for _, c := range p.Commands {
			left := c.Name
			if args := strings.TrimSpace(c.ArgsUsage); len(left)+1+len(args) <= helpColumn-2*helpIndent {
				left += strings.TrimRight(" "+args, " ")
			}
			fmt.Fprintf(&b, "%*s%-*s%s\n", helpIndent, "", helpColumn-helpIndent, left, c.Usage)
		}
	}
	for _, category := range opts.categories() {
		title := category
		if title == "" {
			title = "Options"
		}
		b.WriteString("\n" + title + ":\n")
		for _, o := range opts {
			if o.category == category && !o.hidden {
				o.describe(&b)
			}
		}
	}
	return b.String()
}

// categories lists the categories with a visible option, the nameless first,
// the others as they first appear.
func (opts options) categories() []string {
	categories := []string{""}
	for _, o := range opts {
		if !o.hidden && !slices.Contains(categories, o.category) {
			categories = append(categories, o.category)
		}
	}
	return categories
}

// describe writes one option: its forms on the left, its explanation on the
// right.
func (o *option) describe(b *strings.Builder) {
	placeholder, usage := o.placeholder, o.usage
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		if name, after, ok := strings.Cut(rest, "`"); ok {
			placeholder, usage = name, before+name+after
		}
	}
	var forms []string
	for _, name := range o.flag.Names() {
		dashes := "--"
		if utf8.RuneCountInString(name) == 1 {
			dashes = "-"
		}
		forms = append(forms, dashes+name)
	}
	slices.SortStableFunc(forms, func(a, b string) int { // -h before --help
		return min(len(a), 3) - min(len(b), 3)
	})
	left := strings.Join(forms, ", ")
	if placeholder != "" && !o.boolean {
		left += " " + placeholder
	}

	var notes []string
	if o.list {
		notes = append(notes, "repeatable")
	}
	if o.required {
		notes = append(notes, "required")
	}
	if o.value != "" {
		notes = append(notes, "default "+o.value)
	}
	words := strings.Fields(usage)
	if len(notes) > 0 {
		words = append(words, strings.Fields("("+strings.Join(notes, "; ")+")")...)
	}
	if len(o.env) > 0 {
		words = append(words, "["+strings.Join(o.env, ", ")+"]")
	}

	column := helpIndent + utf8.RuneCountInString(left)
	fmt.Fprintf(b, "%*s%s", helpIndent, "", left)
	if column+helpIndent > helpColumn {
		b.WriteByte('\n')
		column = 0
	}
	for _, word := range words {
		length := utf8.RuneCountInString(word)
		switch {
		case column < helpColumn:
			fmt.Fprintf(b, "%*s", helpColumn-column, "")
			column = helpColumn
		case column+1+length > helpWidth:
			fmt.Fprintf(b, "\n%*s", helpColumn, "")
			column = helpColumn
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += length
	}
	b.WriteByte('\n')
}
