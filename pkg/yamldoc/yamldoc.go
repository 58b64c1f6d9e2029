// Package yamldoc is what the files of options of several programs have in
// common: one document of YAML, read so that every mistake can be told with its
// line, and the name that was probably meant by one that is not known. It knows
// no option.
package yamldoc

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse parses text into the root of its one document, whose nodes know their
// lines; nil is an empty one, or one of comments alone. Aliases are left as they
// are: whoever follows them must bound what they unfold to. What the text takes
// in memory is bounded by its size, which is the caller's to bound.
func Parse(text []byte) (*yaml.Node, error) {
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("it is no YAML: %w", err)
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is a second document, or something that is none: put it all into one")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, errors.New("it is no YAML with lines of OPTION: VALUE")
	}
	if root := doc.Content[0]; root.Kind != yaml.ScalarNode || root.Tag != "!!null" {
		return root, nil
	}
	return nil, nil // comments alone
}

// Nearest returns which of the names was probably meant by what is written, or
// "" if that is like none of them. Dashes before it, underscores in place of
// dashes, and the case of letters do not count.
func Nearest(written string, names []string) string {
	plain := strings.ToLower(strings.ReplaceAll(strings.TrimLeft(written, "-"), "_", "-"))
	best, least := "", max(2, len(plain)/3)+1
	for _, name := range names {
		if d := distance(plain, strings.ToLower(name), least); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance is how many characters must be put in, taken out or replaced to make
// b of a (Levenshtein), or most where it is no less than that.
func distance(a, b string, most int) int {
	if len(a) > len(b)+most || len(b) > len(a)+most {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return min(row[len(b)], most)
}
