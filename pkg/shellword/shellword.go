// Package shellword quotes words: for lines that people paste into whatever
// shell they have, and for the commands that ssh hands to a shell. It knows
// nothing of what the words mean.
package shellword

import "strings"

// Plain reports whether every shell takes s for one word as it is.
func Plain(s string) bool {
	return s != "" && !strings.HasPrefix(s, "=") && strings.IndexFunc(s, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("./_-+=:,@%", r)
	}) < 0
}

// Paste quotes a word, if needed, for the shell that a line is pasted into.
func Paste(s string) string {
	if Plain(s) {
		return s
	}
	return Quote(s)
}

// Quote puts s in double quotes, which every shell that a line may be pasted
// into understands, cmd and PowerShell among them as far as s has nothing but
// letters, digits and marks of URLs in it. But in double quotes an interactive
// shell takes an exclamation mark for a reference to its history, and nothing
// prevents that but single ones.
func Quote(s string) string {
	if strings.Contains(s, "!") {
		return single(s)
	}
	return double(s)
}

// Proxy quotes a word, if needed, for the shell by which ssh runs a
// ProxyCommand. ssh counts the command's quotes too, and to it a backslash in
// single quotes is not just another character; in double ones both agree. What
// ssh itself expands is left to Percent.
func Proxy(s string) string {
	switch {
	case Plain(s):
		return s
	case strings.Contains(s, `\`):
		return double(s)
	}
	return single(s)
}

// ProxyPath is Proxy for the path of a program, which may begin in the home of
// whoever pastes the line (~/).
func ProxyPath(s string) string {
	if rest, ok := strings.CutPrefix(s, "~/"); ok && rest != "" {
		return "~/" + Proxy(rest)
	}
	return Proxy(s)
}

// PastePath is Paste for the path of a program, which may begin in the home of
// whoever pastes the line (~/).
func PastePath(s string) string {
	if rest, ok := strings.CutPrefix(s, "~/"); ok && rest != "" {
		return "~/" + Paste(rest)
	}
	return Paste(s)
}

// Percent doubles the signs that ssh would expand in an option.
func Percent(s string) string { return strings.ReplaceAll(s, "%", "%%") }

func double(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s) + `"`
}

func single(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
