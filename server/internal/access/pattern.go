package access

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/oidc"
)

// maxPattern is the longest pattern, in bytes.
const maxPattern = 512

// pattern matches text: * stands for any characters but a slash, ** for any
// characters at all, everything else for itself, in the case as written. It
// takes time in proportion to the text.
type pattern struct {
	text string
	re   *regexp.Regexp
}

func newPattern(text string) (pattern, error) {
	if text == "" || len(text) > maxPattern {
		return pattern{}, fmt.Errorf("a pattern has 1 to %d characters", maxPattern)
	}
	re, err := regexp.Compile(expression(text))
	if err != nil {
		return pattern{}, fmt.Errorf("the pattern %q cannot be used: %w", text, err)
	}
	return pattern{text, re}, nil
}

func (p pattern) matches(text string) bool { return p.re.MatchString(text) }

// expression is a pattern as a regular expression.
func expression(text string) string {
	var b strings.Builder
	b.WriteString(`\A(?s:`)
	for text != "" {
		switch {
		case strings.HasPrefix(text, "**"):
			text = strings.TrimLeft(text, "*")
			b.WriteString(`.*`)
		case text[0] == '*':
			text = text[1:]
			b.WriteString(`[^/]*`)
		default:
			literal := text
			if i := strings.IndexByte(text, '*'); i >= 0 {
				literal = text[:i]
			}
			b.WriteString(regexp.QuoteMeta(literal))
			text = text[len(literal):]
		}
	}
	b.WriteString(`)\z`)
	return b.String()
}

// idPattern is a pattern for ids in which {CLAIM} stands for a claim's value.
type idPattern struct {
	text   string
	fixed  pattern  // if there is no claim in it
	pieces []string // literal, claim, literal, …: nil if there is none
}

// errIDPattern says what an id pattern may hold.
var errIDPattern = errors.New("an id pattern has letters, digits and . _ - ~ in parts separated by /, with * for any characters of a part, ** for any parts, and {CLAIM} for a claim of the token")

// newIDPattern reads a pattern; claims says whether {CLAIM} is allowed.
func newIDPattern(text string, claims bool) (idPattern, error) {
	p := idPattern{text: text}
	rest, sample := text, ""
	for {
		literal, more, open := strings.Cut(rest, "{")
		if strings.Contains(literal, "}") {
			return p, fmt.Errorf("the id pattern %q has a } without a {", text)
		}
		sample += literal
		p.pieces = append(p.pieces, literal)
		if !open {
			break
		}
		name, after, closed := strings.Cut(more, "}")
		switch {
		case !closed || name == "" || strings.Contains(name, "{"):
			return p, fmt.Errorf("the id pattern %q has a { without the name of a claim and a }", text)
		case !claims:
			return p, fmt.Errorf("the id pattern %q has a {CLAIM}, but a static token has no claims", text)
		}
		sample += "x"
		p.pieces = append(p.pieces, name)
		rest = after
	}
	// With something in the place of what is not fixed it must be an id: what
	// could never match is a mistake.
	if err := rendezvous.ValidID(strings.ReplaceAll(strings.ReplaceAll(sample, "**", "x"), "*", "x")); err != nil || len(text) > maxPattern {
		return p, fmt.Errorf("the id pattern %q can match no id: %w", text, errIDPattern)
	}
	if len(p.pieces) > 1 {
		return p, nil
	}
	p.pieces = nil
	var err error
	p.fixed, err = newPattern(text)
	return p, err
}

// matches reports whether the id is one that claims allow. A claim that is
// missing, empty or a list of several matches nothing, and what is in it stands
// for itself, stars included.
func (p idPattern) matches(id string, claims oidc.Claims) bool {
	with, ok := p.with(claims)
	return ok && with.matches(id)
}

// with is the pattern for a holder of claims; ok is false if it matches nothing.
func (p idPattern) with(claims oidc.Claims) (with pattern, ok bool) {
	if p.pieces == nil {
		return p.fixed, true
	}
	var b strings.Builder
	b.WriteString(`\A(?s:`)
	for i, piece := range p.pieces {
		if i%2 == 0 {
			inner := expression(piece)
			b.WriteString(inner[len(`\A(?s:`) : len(inner)-len(`)\z`)])
			continue
		}
		values := claims[piece]
		if len(values) != 1 || values[0] == "" || len(values[0]) > rendezvous.MaxID {
			return pattern{}, false
		}
		b.WriteString(regexp.QuoteMeta(values[0]))
	}
	b.WriteString(`)\z`)
	re, err := regexp.Compile(b.String())
	return pattern{p.text, re}, err == nil
}

// filled is the pattern with its claims, for messages; ok is false if it can
// match nothing.
func (p idPattern) filled(claims oidc.Claims) (text string, ok bool) {
	if p.pieces == nil {
		return p.text, true
	}
	for i, piece := range p.pieces {
		if i%2 == 0 {
			text += piece
			continue
		}
		values := claims[piece]
		if len(values) != 1 || values[0] == "" {
			return "", false
		}
		text += values[0]
	}
	return text, true
}
