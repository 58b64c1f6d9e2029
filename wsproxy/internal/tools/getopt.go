package tools

import (
	"slices"
	"strings"
)

// option is one of a tool's options.
type option struct {
	letter byte
	value  string
}

// isOption tells options from other arguments, as getopt does (POSIX, Utility
// Syntax Guidelines 3 to 9): "-" is none.
func isOption(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// length is how many arguments an option takes, with its value.
func (t Tool) length(arg string) int {
	for i := 1; i < len(arg); i++ {
		if strings.IndexByte(t.letters, arg[i]) >= 0 {
			if i == len(arg)-1 {
				return 2 // the value is the next argument
			}
			return 1 // the value is the rest of this one
		}
	}
	return 1
}

// options takes options from the beginning of args, and returns how many
// arguments they are. "--" and what comes after are none.
func (t Tool) options(args []string) (found []option, n int) {
	for n < len(args) && isOption(args[n]) && args[n] != "--" {
		arg := args[n]
		n++
	letters:
		for i := 1; i < len(arg); i++ {
			o := option{letter: arg[i]}
			if strings.IndexByte(t.letters, arg[i]) >= 0 {
				switch {
				case i+1 < len(arg):
					o.value = arg[i+1:]
				case n < len(args):
					o.value = args[n]
					n++
				}
				found = append(found, o)
				break letters
			}
			found = append(found, o)
		}
	}
	return found, n
}

// cluster reports whether an argument is a group of letters with that one.
func (t Tool) cluster(arg string, letter byte) bool {
	if !isOption(arg) || arg[1] == '-' {
		return false
	}
	for i := 1; i < len(arg); i++ {
		if arg[i] == letter {
			return true
		}
		if strings.IndexByte(t.letters, arg[i]) >= 0 {
			return false
		}
	}
	return false
}

func has(options []option, letter byte) bool {
	return slices.ContainsFunc(options, func(o option) bool { return o.letter == letter })
}

// sets reports whether -o sets a keyword of ssh_config(5), which is written
// "Keyword value", "Keyword=value" and in any case.
func sets(options []option, keyword string) bool {
	return slices.ContainsFunc(options, func(o option) bool {
		if o.letter != 'o' {
			return false
		}
		name := strings.TrimLeft(o.value, " \t")
		if i := strings.IndexAny(name, " \t="); i >= 0 {
			name = name[:i]
		}
		return strings.EqualFold(name, keyword)
	})
}
