package config

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"

	"example.com/converge/pkg/cmdline"
)

// width is how wide the comments are, in columns.
const width = 88

// Print writes what holds as a file that Parse reads: what was set, with where,
// and in comments the defaults of the rest. What may not stand in a file is left
// out, secrets among it.
func Print(w io.Writer, head string, effective []cmdline.Effective, keys []Key) error {
	may := map[string]bool{}
	for _, k := range keys {
		may[k.Name] = k.Not == ""
	}
	var b strings.Builder
	comment(&b, head)
	category := "\x00"
	for _, e := range effective {
		if !may[e.Name] {
			continue
		}
		if e.Category != category {
			if category = e.Category; category != "" {
				fmt.Fprintf(&b, "\n#### %s\n", category)
			}
		}
		b.WriteByte('\n')
		comment(&b, e.Usage)
		if e.Source == "" {
			fmt.Fprintf(&b, "# %s: %s\n", e.Name, defaultOf(e.Option))
			continue
		}
		source := " # " + e.Source
		if !e.List {
			fmt.Fprintf(&b, "%s: %s%s\n", e.Name, scalar(e.Option, e.Values[0]), source)
			continue
		}
		fmt.Fprintf(&b, "%s:%s\n", e.Name, source)
		for _, value := range e.Values {
			fmt.Fprintf(&b, "  - %s\n", scalar(e.Option, value))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// comment writes text in lines of comment.
func comment(b *strings.Builder, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

func defaultOf(o cmdline.Option) string {
	switch {
	case o.List:
		return "[]"
	case o.Default == "" && o.Plain:
		return "false"
	}
	return scalar(o, o.Default)
}

// scalar is a value as YAML has it on one line.
func scalar(o cmdline.Option, value string) string {
	if o.Plain {
		return value
	}
	// A string that looks like something else, or has more lines, in quotes.
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: withoutPassword(value)}
	if strings.ContainsAny(node.Value, "\r\n") {
		node.Style = yaml.DoubleQuotedStyle
	}
	out, err := yaml.Marshal(node)
	if err != nil {
		return fmt.Sprintf("%q", value)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// withoutPassword takes the password out of a URL that has one, against the
// rules.
func withoutPassword(value string) string {
	if u, err := url.Parse(value); err == nil && u.User != nil {
		return u.Redacted()
	}
	return value
}
