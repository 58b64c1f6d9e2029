package cmdline

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/net/http/httpguts"

	"example.com/converge/pkg/files"
)

// MaxSecretFile is the largest file that an option with a secret reads, in
// bytes.
const MaxSecretFile = 64 << 10

// SecretFlag returns an option whose value is a secret, to be read by Secret.
// usage should begin with what the secret is; how it may be given is added.
// A value that begins with @ names a file that holds the secret: a process's
// arguments can be read by others on the machine, and end up in histories.
func SecretFlag(program, name, usage string) *cli.StringFlag {
	return &cli.StringFlag{
		Name:    name,
		Usage:   usage + "; @FILE reads it from a file, which keeps it out of the process list",
		EnvVars: EnvVars(program, name),
	}
}

// Secret returns the value of an option made by SecretFlag, or "" if it is not
// set. A secret that was written on the command line itself is used, with a
// warning on in.Stderr. No error repeats the value; those of files that cannot
// be read are plain ones, for a file may come and go.
func Secret(in *Invocation, name string) (string, error) {
	value := in.String(name)
	if value == "" {
		return "", nil
	}
	if !IsFile(value) {
		in.warnLiteral(name)
	}
	return ReadSecret("--"+name, value)
}

// Secrets returns the values of a list whose members may be secrets: @FILE stands
// for the lines of a file, without blank ones and those that begin with #. open
// tells what is none, so that it may stand on the command line without the
// warning of Secret. No error repeats a value.
func Secrets(in *Invocation, name string, open func(string) bool) ([]string, error) {
	var all []string
	for _, value := range in.StringSlice(name) {
		path, isFile := strings.CutPrefix(strings.TrimSpace(value), "@")
		if !isFile {
			if !open(value) {
				in.warnLiteral(name)
			}
			all = append(all, strings.TrimSpace(value))
			continue
		}
		text, err := files.Read(path, MaxSecretFile)
		switch {
		case errors.Is(err, files.ErrTooLarge):
			return nil, Usagef("the file %s of --%s is larger than %d KiB", path, name, MaxSecretFile>>10)
		case err != nil:
			return nil, fmt.Errorf("cannot read the secrets of --%s: %w", name, err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				all = append(all, line)
			}
		}
	}
	for _, value := range all {
		if value == "" || !httpguts.ValidHeaderFieldValue(value) {
			return nil, Usagef("a value of --%s is empty or has a control character in it", name)
		}
	}
	return all, nil
}

// IsFile reports whether the value of an option with a secret names a file.
func IsFile(value string) bool { return strings.HasPrefix(value, "@") }

// ReadSecret resolves the value of an option with a secret: @FILE is the
// file's content without white space around it, anything else stands for
// itself. what names the option in errors, which do not repeat the value. It
// may be called again for a file that is renewed while the program runs. A
// secret has no control characters in it, so that it can stand in a header.
func ReadSecret(what, value string) (string, error) {
	path, isFile := strings.CutPrefix(value, "@")
	if isFile {
		text, err := files.Read(path, MaxSecretFile)
		switch {
		case errors.Is(err, files.ErrTooLarge):
			return "", Usagef("the file %s of %s is larger than %d KiB: it cannot be a secret", path, what, MaxSecretFile>>10)
		case err != nil:
			return "", fmt.Errorf("cannot read the secret of %s: %w", what, err)
		}
		value = strings.TrimSpace(string(text))
	}
	switch {
	case value == "":
		return "", Usagef("the secret of %s is empty: give one, or leave the option out", what)
	case !httpguts.ValidHeaderFieldValue(value):
		return "", Usagef("the secret of %s has a line break or another control character in it: give a single line", what)
	}
	return value, nil
}

// warnLiteral says once for each option that its secret was written where
// others can read it. A variable is not such a place.
func (in *Invocation) warnLiteral(name string) {
	variable, ok := in.onLine[name]
	if !ok {
		return
	}
	delete(in.onLine, name)
	fmt.Fprintf(in.Stderr, "%s: warning: the secret of --%s is on the command line, where others on this machine can read it: give --%s @FILE or the variable %s\n",
		in.App.Name, name, name, variable)
}

// secretHeader reports whether a header's value is likely to be a secret.
func secretHeader(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"authorization", "cookie", "token", "secret", "password", "key"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
