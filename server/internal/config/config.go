// Package config is the server's file of options: YAML whose keys are the
// names of the options, whatever those are. It knows none of them, nor what they
// mean, so that it cannot fall out of step with the command line.
package config

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/files"
	"example.com/converge/pkg/yamldoc"
)

// Limits of a file.
const (
	maxFile = 1 << 20 // bytes
	maxList = 1024    // values of one option
)

// Key is an option that may stand in a file, or why it may not.
type Key struct {
	cmdline.Option
	// Not says why it may not, after "KEY is no setting: "; "" where it may.
	Not string
}

// Load reads a file once. The errors name it, and the line where there is one.
func Load(path string, keys []Key) ([]cmdline.Setting, error) { return new(File).Load(path, keys) }

// File is a file that is read, and read again while what was in it holds. The
// zero value has not been read. It is not for concurrent use.
type File struct {
	read bool
	some bool // options were in it
}

// Load reads the file. The errors name it, and the line where there is one. Once
// it was read it must be a regular file, for which nobody waits, and not have
// lost all its options: it may be about to be written.
func (f *File) Load(path string, keys []Key) ([]cmdline.Setting, error) {
	read := files.Read
	if f.read {
		read = files.ReadRegular
	}
	text, err := read(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	settings, err := Parse(text, path, keys)
	if err == nil && f.some && len(settings) == 0 {
		err = errors.New("it has no option any more, which may be half of a change: start the server again if it is meant")
	}
	if err != nil {
		return nil, cmdline.Usagef("cannot use the configuration %s: %w", path, err)
	}
	f.read, f.some = true, f.some || len(settings) > 0
	return settings, nil
}

// Parse reads the text of a file: a mapping of options to their values, lists
// for those that may be repeated. A key that is unknown is refused, with the name
// that it may have been meant to be. The errors name the line.
func Parse(text []byte, path string, keys []Key) ([]cmdline.Setting, error) {
	root, err := yamldoc.Parse(text)
	if err != nil || root == nil {
		return nil, err
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: it must be lines of OPTION: VALUE", root.Line)
	}
	var settings []cmdline.Setting
	seen := map[string]int{}
	for at := 0; at+1 < len(root.Content); at += 2 {
		name, value := root.Content[at], root.Content[at+1]
		key, err := find(name, keys)
		if err != nil {
			return nil, err
		}
		if line := seen[key.Name]; line > 0 {
			return nil, fmt.Errorf("line %d: %s is there twice: the first time in line %d", name.Line, key.Name, line)
		}
		seen[key.Name] = name.Line
		add := func(n *yaml.Node) error {
			switch {
			case n.Kind != yaml.ScalarNode && key.List:
				return fmt.Errorf("line %d: %s must be a value or a list of them", n.Line, key.Name)
			case n.Kind != yaml.ScalarNode:
				return fmt.Errorf("line %d: %s must be one value", n.Line, key.Name)
			case n.Tag == "!!null":
				return fmt.Errorf(`line %d: %s has no value: give one, or "" for an empty one, or leave the line out`, n.Line, key.Name)
			}
			settings = append(settings, cmdline.Setting{Name: key.Name, Value: n.Value, Source: fmt.Sprintf("line %d of %s", n.Line, path)})
			return nil
		}
		if value.Kind != yaml.SequenceNode || !key.List {
			if err := add(value); err != nil {
				return nil, err
			}
			continue
		}
		if len(value.Content) > maxList {
			return nil, fmt.Errorf("line %d: %s has more than %d values", value.Line, key.Name, maxList)
		}
		for _, element := range value.Content {
			if err := add(element); err != nil {
				return nil, err
			}
		}
	}
	return settings, nil
}

// find returns the key that a line begins with.
func find(name *yaml.Node, keys []Key) (Key, error) {
	if name.Kind != yaml.ScalarNode {
		return Key{}, fmt.Errorf("line %d: it must be lines of OPTION: VALUE", name.Line)
	}
	at := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name.Value })
	switch {
	case at < 0:
		hint := "server --print-config shows all keys"
		if near := nearest(name.Value, keys); near != "" {
			hint = fmt.Sprintf("perhaps you mean %s", near)
		}
		return Key{}, fmt.Errorf("line %d: the key %.64q is not known: %s", name.Line, name.Value, hint)
	case keys[at].Not != "":
		return Key{}, fmt.Errorf("line %d: %s is no setting: %s", name.Line, name.Value, keys[at].Not)
	}
	return keys[at], nil
}

// nearest returns the name that was probably meant, or "".
func nearest(written string, keys []Key) string {
	var names []string
	for _, k := range keys {
		if k.Not == "" {
			names = append(names, k.Name)
		}
	}
	return yamldoc.Nearest(written, names)
}
