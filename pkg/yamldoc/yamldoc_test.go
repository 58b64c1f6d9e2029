package yamldoc

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestParse(t *testing.T) {
	root, err := Parse([]byte("# a comment\na: 1\n\nb: [2]\n"))
	if err != nil || root.Kind != yaml.MappingNode || root.Content[2].Line != 4 {
		t.Errorf("%+v, %v", root, err)
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "~"} {
		if root, err := Parse([]byte(text)); err != nil || root != nil {
			t.Errorf("%q: %+v, %v", text, root, err)
		}
	}
	for text, want := range map[string]string{
		"a: b: c":     "it is no YAML: ",
		"\t":          "it is no YAML: ",
		"a\n---\nb":   "second document",
		"a: *b":       "it is no YAML: ",
		"a: 1\n---\n": "second document",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"listen", "debug-listen", "ReadonlyRootfs", "drain"}
	for word, want := range map[string]string{
		"listen": "listen", "lsten": "listen", "--listener": "listen", "debug_listen": "debug-listen", "Debug-Listen": "debug-listen",
		"readOnlyRootFs": "ReadonlyRootfs", "debug": "", "x": "", "": "",
	} {
		if got := Nearest(word, names); got != want {
			t.Errorf("%q is near %q, want %q", word, got, want)
		}
	}
	if d := distance("kitten", "sitting", 10); d != 3 {
		t.Errorf("the distance is %d", d)
	}
}

// FuzzParse: nothing panics, and what is returned knows its lines.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		root, err := Parse(text)
		if err != nil || root == nil {
			return
		}
		if root.Line < 1 {
			t.Errorf("line %d", root.Line)
		}
	})
}
