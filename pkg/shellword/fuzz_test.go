package shellword

import (
	"errors"
	"strings"
	"testing"
)

// word reads one word as a POSIX shell does (Shell Command Language, 2.2), and
// fails where that would see something else, expand something, or go on. An
// interactive one also has a history.
func word(s string, history bool) (string, error) {
	var b strings.Builder
	for s != "" {
		switch c := s[0]; {
		case c == '\'':
			inside, rest, closed := strings.Cut(s[1:], "'")
			if !closed {
				return "", errors.New("a quote is open")
			}
			b.WriteString(inside)
			s = rest
		case c == '"':
			rest, err := doubleQuoted(&b, s[1:], history)
			if err != nil {
				return "", err
			}
			s = rest
		case c == '\\' && len(s) > 1 && s[1] != '\n':
			b.WriteByte(s[1])
			s = s[2:]
		case strings.IndexByte("|&;<>()$`\\ \t\n*?[#~!{}^\r", c) >= 0, c == '=' && b.Len() == 0:
			return "", errors.New("something that means more stands bare")
		default:
			b.WriteByte(c)
			s = s[1:]
		}
	}
	return b.String(), nil
}

// doubleQuoted reads to the closing quote and returns what follows it.
func doubleQuoted(b *strings.Builder, s string, history bool) (rest string, err error) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[i+1:], nil
		case c == '$', c == '`', c == '!' && history:
			return "", errors.New("double quotes expand something")
		case c == '\\':
			if i+1 < len(s) && strings.IndexByte("$`\"\\\n", s[i+1]) >= 0 {
				i++
				if s[i] == '\n' {
					continue // both are dropped
				}
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", errors.New("a quote is open")
}

// FuzzWords: whatever a word holds, a shell reads it as that one word.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"", "a b", `it's "50%" $x`, "`y`!\\", "=zsh", "~/x", "wss://h/client/id#PIN", "-oUser=bob", "a\nb", `\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, quoted := range map[string]string{"Paste": Paste(s), "Quote": Quote(s), "Proxy": Proxy(s)} {
			if got, err := word(quoted, name != "Proxy"); err != nil || got != s {
				t.Errorf("%s(%q) is %s, which a shell reads as %q, %v", name, s, quoted, got, err)
			}
		}
		if got := strings.ReplaceAll(Percent(s), "%%", "%"); got != s {
			t.Errorf("Percent(%q) gives %q", s, got)
		}
		if rest, ok := strings.CutPrefix(s, "~/"); ok && rest != "" {
			for name, quoted := range map[string]string{"PastePath": PastePath(s), "ProxyPath": ProxyPath(s)} {
				tail, ok := strings.CutPrefix(quoted, "~/")
				if got, err := word(tail, name == "PastePath"); !ok || err != nil || got != rest {
					t.Errorf("%s(%q) is %s, which a shell reads as the home and %q, %v", name, s, quoted, got, err)
				}
			}
		}
	})
}
