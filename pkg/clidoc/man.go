package clidoc

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/converge/pkg/cmdline"
)

// Man is the program's manual page, in the macros of man(7), for the release of
// that version and day.
func Man(m cmdline.Manual, version string, date time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".\\\" Made from the program's flags.\n.TH %s 1 %s \"Converge %s\" \"Converge\"\n",
		strings.ToUpper(m.Name), date.Format(time.DateOnly), roff(version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n", roff(m.Name), roff(m.Usage))
	manSynopsis(&b, m)
	if m.Description != "" {
		b.WriteString(".SH DESCRIPTION\n")
		manText(&b, m.Description)
	}
	category := ""
	for _, o := range m.Options {
		if o.Category != category {
			category = o.Category
			fmt.Fprintf(&b, ".SH %s\n", roff(strings.ToUpper(category)))
		}
		manOption(&b, o)
	}
	if len(m.Commands) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, c := range m.Commands {
			fmt.Fprintf(&b, ".SS %s\n", roff(c.Name))
			manSynopsis(&b, c)
			fmt.Fprintf(&b, ".PP\n%s.\n", roff(sentence(c.Usage)))
			if c.Description != "" {
				b.WriteString(".PP\n")
				manText(&b, c.Description)
			}
			for _, o := range c.Options {
				manOption(&b, o)
			}
		}
	}
	if variables(m) {
		b.WriteString(".SH ENVIRONMENT\nEach option has a variable, which is named beside it.\n" +
			"The command line comes before it, an empty one counts as unset, and one for a repeatable option holds one value a line.\n")
	}
	b.WriteString(".SH EXIT STATUS\n")
	exits := m.Exits
	if exits == nil {
		exits = []cmdline.ManualExit{
			{Code: cmdline.ExitOK, Meaning: "It did what it was asked for."},
			{Code: cmdline.ExitFailure, Meaning: "It failed, and says why on standard error."},
			{Code: cmdline.ExitUsage, Meaning: "The command line or the environment is wrong."},
		}
	}
	for _, e := range exits {
		fmt.Fprintf(&b, ".TP\n%d\n%s\n", e.Code, roff(e.Meaning))
	}
	return b.String()
}

// variables reports whether an option of the program has one.
func variables(m cmdline.Manual) bool {
	for _, o := range m.Options {
		if len(o.Env) > 0 {
			return true
		}
	}
	return slices.ContainsFunc(m.Commands, variables)
}

func manSynopsis(b *strings.Builder, m cmdline.Manual) {
	for i, line := range m.Synopsis {
		if i > 0 {
			b.WriteString(".br\n")
		}
		rest := strings.TrimPrefix(line, m.Name)
		fmt.Fprintf(b, "\\fB%s\\fR%s\n", roff(m.Name), roff(rest))
	}
}

// manText sets paragraphs filled, and indented lines, which are examples, as
// they are.
func manText(b *strings.Builder, text string) {
	example := false
	for line := range strings.SplitSeq(text, "\n") {
		if indented := strings.HasPrefix(line, " "); indented != example {
			if example = indented; example {
				b.WriteString(".PP\n.nf\n.RS 4\n")
			} else {
				b.WriteString(".RE\n.fi\n.PP\n")
			}
		}
		switch line = strings.TrimSpace(line); {
		case line != "":
			b.WriteString(roff(line) + "\n")
		case !example && !strings.HasSuffix(b.String(), ".PP\n"):
			b.WriteString(".PP\n")
		}
	}
	if example {
		b.WriteString(".RE\n.fi\n")
	}
}

func manOption(b *strings.Builder, o cmdline.ManualOption) {
	b.WriteString(".TP\n")
	for i, name := range o.Names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("\\fB" + roff(name) + "\\fR")
	}
	if o.Placeholder != "" {
		b.WriteString(" \\fI" + roff(o.Placeholder) + "\\fR")
	}
	b.WriteString("\n" + roff(sentence(o.Usage)) + roff(notes(o)) + ".\n")
	if o.Default != "" {
		b.WriteString("Default: " + roff(o.Default) + ".\n")
	}
	if len(o.Env) > 0 {
		b.WriteString("Variable: " + roff(strings.Join(o.Env, ", ")) + ".\n")
	}
}

// roff keeps text from being taken for markup, wherever on a line it stands.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ", "`", `\(ga`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}
