package forgekeys

import (
	"errors"
	"strings"
	"testing"
	"time"

	"example.com/converge/agent/internal/keys"
)

func TestDecodeLines(t *testing.T) {
	a, sumA := newKey(t)
	b, sumB := newKey(t)
	for name, test := range map[string]struct {
		text string
		want []keys.Digest
		left int
		err  error
	}{
		"nothing":       {"", nil, 0, nil},
		"comments":      {"\n# a\r\n  \n", nil, 0, nil},
		"two":           {a + "\n" + b + " bob\n", []keys.Digest{sumA, sumB}, 0, nil},
		"options":       {`no-pty ` + a + "\n" + b + "\n", []keys.Digest{sumB}, 1, nil},
		"authority":     {"cert-authority " + a + "\n" + b, []keys.Digest{sumB}, 1, nil},
		"only options":  {`from="*" ` + a, nil, 0, errNotKeys},
		"prose":         {"Not Found", nil, 0, errNotKeys},
		"key, rubbish":  {a + "\nrubbish\n", []keys.Digest{sumA}, 1, nil},
		"two on a line": {a + " " + b, []keys.Digest{sumA}, 0, nil}, // the second is a comment
	} {
		t.Run(name, func(t *testing.T) {
			got, left, err := decodeLines([]byte(test.text))
			if !errors.Is(err, test.err) || len(got) != len(test.want) || len(left) != test.left {
				t.Fatalf("%d keys, %v left, %v", len(got), left, err)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("key %d is another", i)
				}
			}
		})
	}
}

func FuzzDecodeLines(f *testing.F) {
	line, _ := newKey(f)
	f.Add([]byte(line + "\n# x\n\npty " + line))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, left, err := decodeLines(text)
		if err != nil && (list != nil || left != nil) {
			t.Error("keys beside an error")
		}
		if lines := strings.Count(string(text), "\n") + 1; len(list)+len(left) > lines || len(list) > maxUserKeys {
			t.Errorf("%d keys on %d lines", len(list), lines)
		}
	})
}

func FuzzDecodeKeys(f *testing.F) {
	line, _ := newKey(f)
	f.Add([]byte(toJSON(f, []object{{"key": line, "expires_at": "2030-01-01T00:00:00Z", "usage_type": "auth"}})))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, left, count, err := decodeKeys(text, time.Unix(0, 0))
		if err != nil && count != 0 || len(list)+len(left) != count {
			t.Errorf("%d keys and %d left of %d, %v", len(list), len(left), count, err)
		}
	})
}

func FuzzDecodeMembers(f *testing.F) {
	f.Add([]byte(`[{"login":"a","type":"User"}]`), "github")
	f.Add([]byte(`[{"username":"a","state":"active","access_level":30,"expires_at":"2030-01-01"}]`), "gitlab")
	f.Fuzz(func(t *testing.T, text []byte, forge string) {
		names, count, err := decodeMembers(text, Forge(forge), time.Unix(0, 0))
		if err != nil && count != 0 || len(names) > count {
			t.Errorf("%d names of %d, %v", len(names), count, err)
		}
		for _, name := range names {
			if strings.ContainsAny(name, "/?#%") || strings.HasPrefix(name, ".") {
				t.Errorf("the name %q could be another page", name)
			}
		}
	})
}
