package access

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"example.com/converge/server/internal/oidc"
)

// Limits of a policy.
const (
	maxIssuers = 64
	maxRules   = 1024
	maxWords   = 256 // in a list
)

// policy maps the claims of OIDC tokens to roles and ids.
type policy struct {
	issuers []issuer
}

type issuer struct {
	oidc.Issuer
	line  int
	rules []rule
}

// rule grants something to the tokens that have all its claims.
type rule struct {
	name   string
	line   int
	role   Role
	claims []condition
	ids    []idPattern
}

// condition is met by a claim one of whose values matches one of the patterns.
type condition struct {
	claim    string
	patterns []pattern
}

func (c condition) met(claims oidc.Claims) bool {
	return slices.ContainsFunc(claims[c.claim], func(value string) bool {
		return slices.ContainsFunc(c.patterns, func(p pattern) bool { return p.matches(value) })
	})
}

func (r rule) met(claims oidc.Claims) bool {
	return !slices.ContainsFunc(r.claims, func(c condition) bool { return !c.met(claims) })
}

// verdict is what a policy says of a token and an id.
type verdict struct {
	ok   bool
	rule string   // that decided, where ok
	may  []string // the ids that the token's holder may have, where not
}

// judge asks the rules of an issuer. Nothing is granted but by a rule.
func (p *policy) judge(issuerURL string, claims oidc.Claims, role Role, id string) verdict {
	var v verdict
	for r := range p.met(issuerURL, claims, role) {
		for _, ids := range r.ids {
			if ids.matches(id, claims) {
				return verdict{ok: true, rule: r.name}
			}
			if text, ok := ids.filled(claims); ok {
				v.may = append(v.may, text)
			}
		}
	}
	return v
}

// met returns the rules of an issuer for a role that claims meet.
func (p *policy) met(issuerURL string, claims oidc.Claims, role Role) iter.Seq[rule] {
	return func(yield func(rule) bool) {
		for _, i := range p.issuers {
			// On a reload: the token was for an audience that may not be one any more.
			if i.URL != issuerURL || !slices.ContainsFunc(claims["aud"], func(a string) bool { return slices.Contains(i.Audiences, a) }) {
				continue
			}
			for _, r := range i.rules {
				if r.role == role && r.met(claims) && !yield(r) {
					return
				}
			}
		}
	}
}

// sources are the issuers, for the verifier.
func (p *policy) sources() []oidc.Issuer {
	var list []oidc.Issuer
	for _, i := range p.issuers {
		list = append(list, i.Issuer)
	}
	return list
}

// parsePolicy reads a policy. dir is the folder that a ca in it is relative
// to. Keys that are not known are refused, and every error names its line.
func parsePolicy(text []byte, dir string) (*policy, error) {
	root, err := document(text)
	if err != nil {
		return nil, err
	}
	p := &policy{}
	err = fields(root, "policy", map[string]reader{
		"issuers": each(maxIssuers, func(n *yaml.Node) error {
			i, err := parseIssuer(n, dir)
			p.issuers = append(p.issuers, i)
			return err
		}),
	})
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for at, i := range p.issuers {
		if slices.ContainsFunc(p.issuers[:at], func(other issuer) bool { return other.URL == i.URL }) {
			return nil, fmt.Errorf("line %d: the issuer %s is there twice: put its rules together", i.line, i.URL)
		}
		for _, r := range i.rules {
			if names[r.name] {
				return nil, fmt.Errorf("line %d: the name %q is that of another rule", r.line, r.name)
			}
			names[r.name] = true
		}
	}
	return p, nil
}

func parseIssuer(n *yaml.Node, dir string) (issuer, error) {
	i := issuer{line: n.Line}
	err := fields(n, "issuer", map[string]reader{
		"issuer":     text(&i.URL),
		"audience":   words(&i.Audiences),
		"algorithms": words(&i.Algorithms),
		"ca": func(n *yaml.Node) error {
			err := text(&i.CAFile)(n)
			if err == nil && !filepath.IsAbs(i.CAFile) {
				i.CAFile = filepath.Join(dir, i.CAFile)
			}
			return err
		},
		"max-lifetime": func(n *yaml.Node) error {
			var s string
			err := text(&s)(n)
			if err == nil {
				if i.Lifetime, err = time.ParseDuration(s); err != nil || i.Lifetime <= 0 {
					err = fmt.Errorf("line %d: %q is no duration such as 1h or 90m", n.Line, s)
				}
			}
			return err
		},
		"rules": each(maxRules, func(n *yaml.Node) error {
			r, err := parseRule(n)
			i.rules = append(i.rules, r)
			return err
		}),
	})
	if err == nil {
		if err = i.Check(); err != nil {
			err = fmt.Errorf("line %d: %w", n.Line, err)
		}
	}
	return i, err
}

func parseRule(n *yaml.Node) (rule, error) {
	r := rule{line: n.Line, role: Agent}
	err := fields(n, "rule", map[string]reader{
		"name": text(&r.name),
		"role": func(n *yaml.Node) error {
			var word string
			if err := text(&word)(n); err != nil {
				return err
			}
			if r.role = Role(word); !slices.Contains(roles, r.role) {
				return fmt.Errorf("line %d: the role %q must be agent, client or viewer", n.Line, word)
			}
			return nil
		},
		"claims": func(n *yaml.Node) error { return parseConditions(n, &r.claims) },
		"ids": each(maxWords, func(n *yaml.Node) error {
			var word string
			if err := text(&word)(n); err != nil {
				return err
			}
			p, err := newIDPattern(word, true)
			if err != nil {
				return fmt.Errorf("line %d: %w", n.Line, err)
			}
			r.ids = append(r.ids, p)
			return nil
		}),
	})
	switch {
	case err != nil:
		return r, err
	case len(r.claims) == 0:
		return r, fmt.Errorf("line %d: the rule has no claims: every user of the issuer would be let in, which 'claims: {sub: \"**\"}' says openly", n.Line)
	case len(r.ids) == 0:
		return r, fmt.Errorf("line %d: the rule has no ids: it grants nothing", n.Line)
	}
	if r.name == "" {
		r.name = fmt.Sprintf("line %d", n.Line)
	}
	return r, nil
}

func parseConditions(n *yaml.Node, out *[]condition) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: claims must be lines of CLAIM: VALUE", n.Line)
	}
	for at := 0; at+1 < len(n.Content); at += 2 {
		c := condition{claim: n.Content[at].Value}
		if slices.ContainsFunc(*out, func(other condition) bool { return other.claim == c.claim }) {
			return fmt.Errorf("line %d: the claim %q is there twice: give a list of values", n.Content[at].Line, c.claim)
		}
		var values []string
		if err := words(&values)(n.Content[at+1]); err != nil {
			return err
		}
		for _, value := range values {
			p, err := newPattern(value)
			if err != nil {
				return fmt.Errorf("line %d: the claim %q: %w", n.Content[at].Line, c.claim, err)
			}
			c.patterns = append(c.patterns, p)
		}
		if len(c.patterns) == 0 {
			return fmt.Errorf("line %d: the claim %q has no value", n.Content[at].Line, c.claim)
		}
		*out = append(*out, c)
	}
	return nil
}

// reader takes a value in. Its errors name the line.
type reader func(*yaml.Node) error

// document parses text into one document.
func document(text []byte) (*yaml.Node, error) {
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	if err := decoder.Decode(&doc); err != nil {
		return nil, fmt.Errorf("it is no YAML with a list of issuers: %w", err)
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is a second document, or something that is none: put it all into one")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, errors.New("it is no YAML with a list of issuers")
	}
	return doc.Content[0], nil
}

// fields reads a mapping whose keys are all known, each once.
func fields(n *yaml.Node, what string, known map[string]reader) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: the %s must be lines of KEY: VALUE", n.Line, what)
	}
	seen := map[string]bool{}
	for at := 0; at+1 < len(n.Content); at += 2 {
		key := n.Content[at]
		read := known[key.Value]
		switch {
		case read == nil || key.Kind != yaml.ScalarNode:
			var names []string
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			return fmt.Errorf("line %d: the key %q is not known here: it may be %s", key.Line, key.Value, strings.Join(names, ", "))
		case seen[key.Value]:
			return fmt.Errorf("line %d: the key %q is there twice", key.Line, key.Value)
		}
		seen[key.Value] = true
		if err := read(n.Content[at+1]); err != nil {
			return err
		}
	}
	return nil
}

// each reads a list of at most so many elements.
func each(most int, read reader) reader {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.SequenceNode {
			return fmt.Errorf("line %d: it must be a list", n.Line)
		}
		if len(n.Content) > most {
			return fmt.Errorf("line %d: the list has more than %d elements", n.Line, most)
		}
		for _, element := range n.Content {
			if err := read(element); err != nil {
				return err
			}
		}
		return nil
	}
}

// text reads a word as it is written: true and 42 are words, too.
func text(out *string) reader {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Value == "" || n.Tag == "!!null" {
			return fmt.Errorf("line %d: it must be a word", n.Line)
		}
		*out = n.Value
		return nil
	}
}

// words reads one word or a list of them.
func words(out *[]string) reader {
	one := func(n *yaml.Node) error {
		var word string
		err := text(&word)(n)
		*out = append(*out, word)
		return err
	}
	return func(n *yaml.Node) error {
		if n.Kind == yaml.SequenceNode {
			return each(maxWords, one)(n)
		}
		return one(n)
	}
}
