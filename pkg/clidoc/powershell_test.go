package clidoc

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"example.com/converge/pkg/cmdline"
)

// psToken is a part of a PowerShell script: a literal string, with literal set,
// or one character that is neither space nor in a comment.
type psToken struct {
	text    string
	literal bool
}

// psTokens takes a script apart as PowerShell does, as far as our completion
// goes: literal strings, in which two quotation marks are one and in which those
// of typography count too, comments and brackets.
func psTokens(t *testing.T, script string) []psToken {
	t.Helper()
	quote := func(r rune) bool { return strings.ContainsRune("'\u2018\u2019\u201a\u201b", r) }
	closes := map[rune]rune{')': '(', ']': '[', '}': '{'}
	var tokens []psToken
	var open []rune
	runes := []rune(script)
	for i := 0; i < len(runes); i++ {
		switch r := runes[i]; {
		case r == ' ' || r == '\n':
		case r == '#':
			for i < len(runes) && runes[i] != '\n' {
				i++
			}
		case quote(r):
			var text []rune
			for i++; ; i++ {
				if i == len(runes) {
					t.Fatalf("a string does not end: %.60q", string(text))
				}
				if !quote(runes[i]) {
					text = append(text, runes[i])
				} else if i+1 < len(runes) && quote(runes[i+1]) {
					i++
					text = append(text, runes[i])
				} else {
					break
				}
			}
			tokens = append(tokens, psToken{string(text), true})
		default:
			if strings.ContainsRune("([{", r) {
				open = append(open, r)
			} else if opened, ok := closes[r]; ok {
				if len(open) == 0 || open[len(open)-1] != opened {
					t.Fatalf("%q closes nothing after %v", r, tokens[max(0, len(tokens)-8):])
				}
				open = open[:len(open)-1]
			}
			if strings.ContainsRune("\"`\t\r", r) {
				t.Fatalf("%q is not in our completions", r)
			}
			tokens = append(tokens, psToken{string(r), false})
		}
	}
	if len(open) > 0 {
		t.Fatalf("%q is not closed", open)
	}
	return tokens
}

// psTables finds the tables of a script, each with its keys and values. A table
// that has a key twice, in whatever case, is an error in PowerShell.
func psTables(t *testing.T, tokens []psToken) []map[string]string {
	t.Helper()
	var tables []map[string]string
	var within []int // the tables that are open, -1 for other braces
	for i, token := range tokens {
		switch {
		case token.literal:
			if i+2 >= len(tokens) || tokens[i+1] != (psToken{"=", false}) || len(within) == 0 || within[len(within)-1] < 0 {
				continue
			}
			table := tables[within[len(within)-1]]
			for key := range table {
				if strings.EqualFold(key, token.text) {
					t.Errorf("%q and %q are one key for PowerShell", key, token.text)
				}
			}
			table[token.text] = ""
			if tokens[i+2].literal {
				table[token.text] = tokens[i+2].text
			}
		case token.text == "{":
			if i > 0 && tokens[i-1] == (psToken{"@", false}) {
				within = append(within, len(tables))
				tables = append(tables, map[string]string{})
			} else {
				within = append(within, -1)
			}
		case token.text == "}":
			within = within[:len(within)-1]
		}
	}
	return tables
}

// TestPowerShell reads the tables of the completion as PowerShell would: all
// options and commands are there, with what they are for. Debian has no
// PowerShell that could run it; scripts/ship/powershell has it read by a grammar
// of the language.
func TestPowerShell(t *testing.T) {
	odd := sample()
	odd.Commands[0].Usage = "\u2018begins\u2019 and \u201aends\u201b' # {"
	plain := strings.NewReplacer("\u2018", "'", "\u2019", "'", "\u201a", "'", "\u201b", "'")
	for name, program := range map[string]cmdline.Program{"sample": sample(), "odd": odd} {
		m := program.Manual()
		words, manuals := levels(m)
		levels, commands := map[string]string{}, map[string]string{}
		want := []map[string]string{commands, levels}
		for i, level := range manuals {
			levels[words[i]] = ""
			if i > 0 {
				commands[words[i]] = plain.Replace(level.Usage)
			}
			options := map[string]string{}
			for _, o := range level.Options {
				for _, n := range o.Names {
					options[n] = o.Usage
				}
			}
			want = append(want, options)
		}
		tokens := psTokens(t, PowerShell(m))
		if got := psTables(t, tokens); !slices.EqualFunc(got, want, maps.Equal[map[string]string, map[string]string]) {
			t.Errorf("%s: the tables are %q, want %q", name, got, want)
		}
		for _, called := range []string{"sample", "sample.exe", "converge-sample"} {
			if !slices.Contains(tokens, psToken{called, true}) {
				t.Errorf("%s: nothing is completed for %s", name, called)
			}
		}
	}
}
