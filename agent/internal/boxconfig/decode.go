package boxconfig

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"example.com/converge/container"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/files"
	"example.com/converge/pkg/yamldoc"
)

// maxFile is the largest configuration that is read, in bytes.
const maxFile = 1 << 20

// Load reads a file of YAML. The errors name it, and the line where there is one.
func Load(path string) (container.Config, error) {
	text, err := files.Read(path, maxFile)
	if err != nil {
		return container.Config{}, fmt.Errorf("cannot read the container configuration: %w", err)
	}
	cfg, err := Decode(text)
	if err != nil {
		return cfg, cmdline.Usagef("cannot use the container configuration %s: %w", path, err)
	}
	return cfg, nil
}

// Decode reads a configuration of YAML, whose keys are those of
// container.Config's JSON, in letters of any case. A key that is not known is
// refused, with the name that was probably meant, and so is a value of the wrong
// kind, one that is there twice, and an alias. The errors name the line.
func Decode(text []byte) (container.Config, error) {
	root, err := yamldoc.Parse(text)
	if err != nil || root == nil {
		return container.Config{}, err
	}
	value, err := convert(root, reflect.TypeFor[container.Config](), "")
	if err != nil {
		return container.Config{}, err
	}
	data, err := json.Marshal(value)
	if err != nil {
		return container.Config{}, fmt.Errorf("the configuration cannot be passed on: %w", err)
	}
	return container.ParseConfig(data)
}

var (
	durationType  = reflect.TypeFor[container.Duration]()
	jsonInterface = reflect.TypeFor[json.Unmarshaler]()
	textInterface = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// convert makes of a node what encoding/json decodes into the type. key is the
// path of the node from the root, "" for that itself.
func convert(n *yaml.Node, t reflect.Type, key string) (any, error) {
	wrong := func(want string) error {
		return fmt.Errorf("line %d: %s must be %s", n.Line, named(key), want)
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.AliasNode:
		return nil, fmt.Errorf("line %d: %s is an alias: write it out", n.Line, named(key))
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return nil, fmt.Errorf(`line %d: %s has no value: give one, or "" for an empty one, or leave the line out`, n.Line, named(key))
	case t == durationType:
		if _, err := time.ParseDuration(n.Value); n.Kind != yaml.ScalarNode || err != nil || n.Value == "0" {
			return nil, wrong("a duration such as 60s or 2m")
		}
		return n.Value, nil
	case reflect.PointerTo(t).Implements(textInterface):
		if n.Kind != yaml.ScalarNode {
			return nil, wrong("one value")
		}
		if err := reflect.New(t).Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", n.Line, named(key), err)
		}
		return n.Value, nil
	case reflect.PointerTo(t).Implements(jsonInterface):
		return plain(n, key)
	}
	switch t.Kind() {
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			return nil, wrong("lines of NAME: VALUE")
		}
		return convertStruct(n, t, key)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			return nil, wrong("lines of NAME: VALUE")
		}
		return convertMap(n, t, key)
	case reflect.Slice, reflect.Array:
		if n.Kind != yaml.SequenceNode {
			return nil, wrong("a list")
		}
		if t.Kind() == reflect.Array && len(n.Content) != t.Len() {
			return nil, wrong(fmt.Sprintf("a list of %d", t.Len()))
		}
		list := make([]any, len(n.Content))
		for i, element := range n.Content {
			var err error
			if list[i], err = convert(element, t.Elem(), fmt.Sprintf("%s[%d]", key, i)); err != nil {
				return nil, err
			}
		}
		return list, nil
	case reflect.String:
		if n.Kind != yaml.ScalarNode {
			return nil, wrong("one value")
		}
		return n.Value, nil // a user 1000 or an image 3.12 is no number
	case reflect.Interface:
		return plain(n, key)
	}
	into := reflect.New(t)
	want := scalars[t.Kind()]
	if n.Kind != yaml.ScalarNode || !slices.Contains(want.tags, n.ShortTag()) || n.Decode(into.Interface()) != nil {
		return nil, wrong(want.name)
	}
	return into.Elem().Interface(), nil
}

// scalar says what a value of a kind must be, and the YAML tags of it.
type scalar struct {
	name string
	tags []string
}

var scalars = map[reflect.Kind]scalar{
	reflect.Bool:    {"true or false", []string{"!!bool"}},
	reflect.Float32: {"a number", []string{"!!int", "!!float"}},
	reflect.Float64: {"a number", []string{"!!int", "!!float"}},
}

func init() {
	for k := reflect.Int; k <= reflect.Uint64; k++ {
		scalars[k] = scalar{"a whole number, without a unit, that is not too large", []string{"!!int"}}
	}
}

// plain is a node as it is, for what decodes itself.
func plain(n *yaml.Node, key string) (any, error) {
	if hasAlias(n) {
		return nil, fmt.Errorf("line %d: %s has an alias: write it out", n.Line, named(key))
	}
	var value any
	if err := n.Decode(&value); err != nil {
		return nil, fmt.Errorf("line %d: %s: %w", n.Line, named(key), err)
	}
	return value, nil
}

func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

// convertStruct converts a mapping whose keys are the fields of a struct.
func convertStruct(n *yaml.Node, t reflect.Type, key string) (any, error) {
	known := fields(t, nil)
	result := map[string]any{}
	seen := map[string]int{}
	for at := 0; at+1 < len(n.Content); at += 2 {
		name, value := n.Content[at], n.Content[at+1]
		if name.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: %s must be lines of NAME: VALUE", name.Line, named(key))
		}
		i := slices.IndexFunc(known, func(f field) bool { return f.name == name.Value })
		if i < 0 {
			i = slices.IndexFunc(known, func(f field) bool { return strings.EqualFold(f.name, name.Value) })
		}
		if i < 0 {
			return nil, unknown(name, known, key)
		}
		f := known[i]
		if line := seen[f.name]; line > 0 {
			return nil, fmt.Errorf("line %d: %s is there twice: the first time in line %d", name.Line, join(key, f.name), line)
		}
		seen[f.name] = name.Line
		converted, err := convert(value, f.kind, join(key, f.name))
		if err != nil {
			return nil, err
		}
		result[f.name] = converted
	}
	return result, nil
}

// convertMap converts a mapping with keys of its own.
func convertMap(n *yaml.Node, t reflect.Type, key string) (any, error) {
	result := map[string]any{}
	for at := 0; at+1 < len(n.Content); at += 2 {
		name, value := n.Content[at], n.Content[at+1]
		if name.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: %s must be lines of NAME: VALUE", name.Line, named(key))
		}
		here := join(key, name.Value)
		if _, there := result[name.Value]; there {
			return nil, fmt.Errorf("line %d: %s is there twice", name.Line, here)
		}
		converted, err := convert(value, t.Elem(), here)
		if err != nil {
			return nil, err
		}
		result[name.Value] = converted
	}
	return result, nil
}

// field is a key of a struct.
type field struct {
	name string
	kind reflect.Type
}

// fields lists the keys of a struct as encoding/json has them.
func fields(t reflect.Type, all []field) []field {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous && f.Type.Kind() == reflect.Struct:
			all = fields(f.Type, all)
		case name == "":
			all = append(all, field{f.Name, f.Type})
		default:
			all = append(all, field{name, f.Type})
		}
	}
	return all
}

// unknown is the error for a key that there is not.
func unknown(name *yaml.Node, known []field, key string) error {
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	where := ""
	if key != "" {
		where = " in " + key
	}
	hint := "docs/container.md says where to find them all"
	if near := yamldoc.Nearest(name.Value, names); near != "" {
		hint = "perhaps you mean " + near
	} else if len(names) < 24 {
		hint = "there are " + strings.Join(names, ", ")
	}
	return fmt.Errorf("line %d: the key %.64q is not known%s: %s", name.Line, name.Value, where, hint)
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// named is a key as messages have it.
func named(key string) string {
	if key == "" {
		return "the configuration"
	}
	return key
}
