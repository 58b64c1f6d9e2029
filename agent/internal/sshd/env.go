package sshd

import (
	"fmt"
	"path"
	"strings"
)

// Limits of the variables that one session may set.
const (
	maxVariables     = 64
	maxVariableBytes = 32 << 10
)

// accepted are the patterns of variables that every client may set: those that
// say how to show and to write things, none that changes what a program does.
var accepted = []string{"LANG", "LANGUAGE", "LC_*", "TERM", "COLORTERM", "TZ"}

// variables are those that a client has set for a session.
type variables struct {
	list  []string
	bytes int
}

// set adds a variable and reports whether it was accepted.
func (v *variables) set(name, value string, more []string) bool {
	if !isName(name) || strings.IndexByte(value, 0) >= 0 ||
		!matches(accepted, name) && !matches(more, name) ||
		len(v.list) == maxVariables || v.bytes+len(name)+len(value) > maxVariableBytes {
		return false
	}
	v.bytes += len(name) + len(value)
	v.list = append(v.list, name+"="+value)
	return true
}

// isName reports whether a name is one that every shell takes.
func isName(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// matches reports whether a pattern matches the name.
func matches(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}

// checkPatterns refuses patterns that could never match.
func checkPatterns(patterns []string) error {
	for _, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Errorf("cannot accept environment variables by the pattern %q: "+
				"give a name, with * for any letters", pattern)
		}
	}
	return nil
}
