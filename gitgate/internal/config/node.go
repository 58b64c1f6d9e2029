package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"go.yaml.in/yaml/v3"
)

// Limits of a file.
const (
	maxFile  = 1 << 20 // bytes
	maxNodes = 100_000 // values, with those that YAML's aliases repeat
	maxDepth = 16
)

// node is a value of a file, whatever the file's format, with its line.
type node struct {
	line int
	kind kind
	text string // of a scalar
	keys []entry
	list []*node
}

type kind int

const (
	scalar kind = iota
	null
	mapping
	sequence
)

type entry struct {
	name  string
	line  int
	value *node
}

// formats are the file name's endings, in the order in which they are looked
// for.
var formats = []struct {
	ending string
	parse  func([]byte) (*node, error)
}{
	{"yaml", parseYAML}, {"yml", parseYAML}, {"json", parseJSON}, {"toml", parseTOML},
}

var errTooMuch = fmt.Errorf("there are more than %d values in it, or they are nested more than %d deep", maxNodes, maxDepth)

// parseYAML reads one document.
func parseYAML(text []byte) (*node, error) {
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return &node{kind: mapping, line: 1}, nil
	} else if err != nil {
		return nil, yamlError(err, text)
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is a second document, or something that is none: put it all into one")
	}
	left := maxNodes
	return fromYAML(doc.Content[0], &left, 0)
}

// yamlError is the parser's error, with a line and without a value: of one that
// begins with * it has no line, and that may be a secret.
func yamlError(err error, text []byte) error {
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	name, unknown := strings.CutPrefix(said, "unknown anchor '")
	if !unknown {
		return errors.New(said)
	}
	before, _, _ := bytes.Cut(text, []byte("*"+strings.TrimSuffix(name, "' referenced")))
	return fmt.Errorf("line %d: a value begins with *, which YAML takes for the name of another: put it into quotes", 1+bytes.Count(before, []byte{'\n'}))
}

func fromYAML(y *yaml.Node, left *int, depth int) (*node, error) {
	if *left--; *left < 0 || depth > maxDepth {
		return nil, errTooMuch
	}
	n := &node{line: y.Line}
	switch y.Kind {
	case yaml.AliasNode:
		return fromYAML(y.Alias, left, depth+1)
	case yaml.ScalarNode:
		if n.text = y.Value; y.Tag == "!!null" {
			n.kind = null
		}
	case yaml.SequenceNode:
		n.kind = sequence
		for _, c := range y.Content {
			element, err := fromYAML(c, left, depth+1)
			if err != nil {
				return nil, err
			}
			n.list = append(n.list, element)
		}
	case yaml.MappingNode:
		n.kind = mapping
		for i := 0; i+1 < len(y.Content); i += 2 {
			key := y.Content[i]
			if key.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: a key must be a word", key.Line)
			}
			value, err := fromYAML(y.Content[i+1], left, depth+1)
			if err != nil {
				return nil, err
			}
			if key.Tag == "!!merge" { // <<: *common
				n.merge(value)
				continue
			}
			n.keys = append(n.keys, entry{key.Value, key.Line, value})
		}
	}
	return n, nil
}

// merge takes over the keys that are not there, or are later.
func (n *node) merge(from *node) {
	if from.kind == sequence {
		for _, one := range from.list {
			n.merge(one)
		}
		return
	}
	// The last of two counts: the first was merged there, and has another's place.
	for _, e := range slices.Backward(from.keys) {
		if n.find(e.name) == nil {
			n.keys = append(n.keys, entry{e.name, -abs(e.line), e.value}) // a later one may take its place
		}
	}
}

// find returns the value of a key, in any case of letters, or nil.
func (n *node) find(name string) *entry {
	for i, e := range n.keys {
		if strings.EqualFold(e.name, name) {
			return &n.keys[i]
		}
	}
	return nil
}

// parseJSON reads one value.
func parseJSON(text []byte) (*node, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	at := &lines{text: text}
	left := maxNodes
	n, err := fromJSON(decoder, at, &left, 0)
	if err == nil {
		if _, err = decoder.Token(); errors.Is(err, io.EOF) {
			return n, nil
		}
		err = errors.New("there is something after the end")
	}
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, errTooMuch):
		return nil, err
	case errors.As(err, &syntax):
		return nil, fmt.Errorf("line %d: %w", at.of(syntax.Offset), err)
	}
	return nil, fmt.Errorf("line %d: %w", at.of(decoder.InputOffset()), err)
}

// lines counts them.
type lines struct{ text []byte }

func (l *lines) of(offset int64) int {
	return 1 + bytes.Count(l.text[:min(int(offset), len(l.text))], []byte{'\n'})
}

func fromJSON(decoder *json.Decoder, at *lines, left *int, depth int) (*node, error) {
	if *left--; *left < 0 || depth > maxDepth {
		return nil, errTooMuch
	}
	token, err := decoder.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	n := &node{line: at.of(decoder.InputOffset())}
	switch token {
	case nil:
		n.kind = null
		return n, nil
	case json.Delim('['):
		n.kind = sequence
		for decoder.More() {
			element, err := fromJSON(decoder, at, left, depth+1)
			if err != nil {
				return nil, err
			}
			n.list = append(n.list, element)
		}
	case json.Delim('{'):
		n.kind = mapping
		for decoder.More() {
			key, err := decoder.Token()
			if err != nil {
				return nil, err
			}
			line := at.of(decoder.InputOffset())
			value, err := fromJSON(decoder, at, left, depth+1)
			if err != nil {
				return nil, err
			}
			n.keys = append(n.keys, entry{fmt.Sprint(key), line, value})
		}
	default:
		n.text = fmt.Sprint(token)
		return n, nil
	}
	_, err = decoder.Token() // the bracket at the end
	return n, err
}

// parseTOML reads a file. The library's decoder finds what is wrong; its parser
// knows the lines.
func parseTOML(text []byte) (*node, error) {
	var all map[string]any
	if err := toml.Unmarshal(text, &all); err != nil {
		var where *toml.DecodeError
		if errors.As(err, &where) {
			row, _ := where.Position()
			return nil, fmt.Errorf("line %d: %s", row, strings.TrimPrefix(where.Error(), "toml: "))
		}
		return nil, errors.New(strings.TrimPrefix(err.Error(), "toml: "))
	}
	root := &node{kind: mapping, line: 1}
	here := root
	left := maxNodes
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		if left--; left < 0 {
			return nil, errTooMuch
		}
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			at := root
			for it := e.Key(); it.Next(); {
				key := it.Node()
				at = at.step(string(key.Data), p.Shape(key.Raw).Start.Line, it.IsLast() && e.Kind == unstable.ArrayTable)
			}
			here = at
		case unstable.KeyValue:
			if err := here.assign(&p, e, &left, 0); err != nil {
				return nil, err
			}
		}
	}
	return root, p.Error()
}

// step goes into a table, which it makes; of an array into the last one, or a
// new one.
func (n *node) step(name string, line int, another bool) *node {
	e := n.find(name)
	if e == nil {
		value := &node{kind: mapping, line: line}
		if another {
			value.kind = sequence
		}
		n.keys = append(n.keys, entry{name, line, value})
		e = &n.keys[len(n.keys)-1]
	}
	if e.value.kind != sequence {
		return e.value
	}
	if another || len(e.value.list) == 0 {
		e.value.list = append(e.value.list, &node{kind: mapping, line: line})
	}
	return e.value.list[len(e.value.list)-1]
}

// assign puts one line, key = value, in.
func (n *node) assign(p *unstable.Parser, e *unstable.Node, left *int, depth int) error {
	at := n
	for it := e.Key(); it.Next(); {
		key := it.Node()
		line := p.Shape(key.Raw).Start.Line
		if !it.IsLast() {
			at = at.step(string(key.Data), line, false)
			continue
		}
		value, err := fromTOML(p, e.Value(), line, left, depth+1)
		if err != nil {
			return err
		}
		at.keys = append(at.keys, entry{string(key.Data), line, value})
	}
	return nil
}

func fromTOML(p *unstable.Parser, v *unstable.Node, line int, left *int, depth int) (*node, error) {
	if *left--; *left < 0 || depth > maxDepth {
		return nil, errTooMuch
	}
	n := &node{line: line}
	switch v.Kind {
	case unstable.Array:
		n.kind = sequence
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.Comment {
				continue
			}
			element, err := fromTOML(p, it.Node(), line, left, depth+1)
			if err != nil {
				return nil, err
			}
			n.list = append(n.list, element)
		}
	case unstable.InlineTable:
		n.kind = mapping
		for it := v.Children(); it.Next(); {
			if it.Node().Kind != unstable.KeyValue {
				continue
			}
			if err := n.assign(p, it.Node(), left, depth+1); err != nil {
				return nil, err
			}
		}
	default:
		n.text = string(v.Data)
	}
	return n, nil
}
