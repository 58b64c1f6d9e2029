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
	for _, line := range synopsis(p) {
		fmt.Fprintf(&b, "%*s%s\n", helpIndent, "", line)
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
		b.WriteString("\n" + heading(category) + ":\n")
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
	m := o.manual()
	left := strings.Join(m.Names, ", ")
	if m.Placeholder != "" {
		left += " " + m.Placeholder
	}

	var notes []string
	if m.Repeatable {
		notes = append(notes, "repeatable")
	}
	if m.Required {
		notes = append(notes, "required")
	}
	if m.Default != "" {
		notes = append(notes, "default "+m.Default)
	}
	words := strings.Fields(m.Usage)
	if len(notes) > 0 {
		words = append(words, strings.Fields("("+strings.Join(notes, "; ")+")")...)
	}
	if len(m.Env) > 0 {
		words = append(words, "["+strings.Join(m.Env, ", ")+"]")
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
