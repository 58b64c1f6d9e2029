// Package tools turns the arguments of wsproxy ssh, sftp, scp and rsync into
// those of the stock programs. It knows which of their options take a value,
// so as to find the URL among them; it runs nothing, and must know nothing of
// connections.
package tools

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Tool is one of the programs.
type Tool struct {
	// Name is how it is called.
	Name string
	// Usage shows its arguments.
	Usage string

	// letters are its options of one letter that take a value.
	letters string
	build   func(t Tool, l Line, s Settings) ([]string, error)
}

// The letters are those of OpenSSH 9.9 and rsync 3.4; older ones have no
// other meaning for any of them.
var (
	// SSH opens a shell or runs a command.
	SSH = Tool{
		Name: "ssh", Usage: "[SSH-OPTIONS] URL [SSH-OPTIONS] [COMMAND...]",
		letters: "BbcDEeFIiJLlmOoPpQRSWw", build: ssh,
	}
	// SFTP moves files as one types.
	SFTP = Tool{
		Name: "sftp", Usage: "[SFTP-OPTIONS] URL [SFTP-OPTIONS]",
		letters: "BbcDFiJloPRSsX", build: sftp,
	}
	// SCP copies files.
	SCP = Tool{
		Name: "scp", Usage: "[SCP-OPTIONS] URL [SCP-OPTIONS] job:PATH... DIR\n[SCP-OPTIONS] URL [SCP-OPTIONS] FILE... job:PATH",
		letters: "cDFiJlMoPSX", build: scp,
	}
	// Rsync copies what has changed.
	Rsync = Tool{
		Name: "rsync", Usage: "URL [RSYNC-OPTIONS] job:PATH... DIR\nURL [RSYNC-OPTIONS] FILE... job:PATH",
		letters: "BefMT@", build: rsync,
	}
)

// Line is the arguments of a tool, taken apart.
type Line struct {
	// Before and After are what stands on either side of the URL.
	Before []string
	URL    string
	After  []string
}

// Cut takes wsproxy's own options, which begin with two hyphens, out of what
// stands before the URL. value tells which of them take a value.
func (t Tool) Cut(args []string, value func(name string) bool) (own, rest []string) {
	for len(args) > 0 {
		arg := args[0]
		switch name, isOwn := strings.CutPrefix(arg, "--"); {
		case isOwn && name != "":
			n := 1
			if !strings.Contains(name, "=") && value(name) {
				n = min(2, len(args))
			}
			own, args = append(own, args[:n]...), args[n:]
		case arg == "--" || !isOption(arg): // the URL
			return own, append(rest, args...)
		default:
			n := min(t.length(arg), len(args))
			rest, args = append(rest, args[:n]...), args[n:]
		}
	}
	return own, rest
}

// Split finds the URL: the first argument that is no option nor the value of one.
func (t Tool) Split(args []string) (Line, error) {
	_, n := t.options(args)
	l := Line{Before: args[:n]}
	if n < len(args) && args[n] == "--" {
		n++
	}
	if n == len(args) {
		return Line{}, errors.New("give one URL, such as \"ws://HOST/client/ID#PIN\"")
	}
	l.URL, l.After = args[n], args[n+1:]
	if !strings.Contains(l.URL, "://") {
		return Line{}, fmt.Errorf("%q is no URL: the first argument after the options is one, such as \"ws://HOST/client/ID#PIN\"", l.URL)
	}
	return l, nil
}

// Settings are what the stock program is told beside the user's own arguments.
type Settings struct {
	// Host is what it calls the agent, and User the log-in name unless the user
	// gives another.
	Host, User string
	// ProxyCommand is the command for its shell, percent signs doubled.
	ProxyCommand string
	// KnownHosts is the file that holds the agent's key under the name of Host.
	KnownHosts string
	// AliveInterval is after how many seconds of silence ssh asks for a sign of
	// life, and AliveCount how many more it puts up with.
	AliveInterval, AliveCount int
}

// Args returns the stock program's arguments.
func (t Tool) Args(l Line, s Settings) ([]string, error) { return t.build(t, l, s) }

// pinned are the options that nothing may overrule: ssh takes the first of
// several values. VerifyHostKeyDNS would be another way to believe a key,
// UpdateHostKeys would write to our file.
func (s Settings) pinned() []string {
	file := File(s.KnownHosts)
	return []string{
		"-oProxyCommand=" + s.ProxyCommand,
		"-oHostKeyAlias=" + s.Host,
		"-oUserKnownHostsFile=" + file,
		"-oGlobalKnownHostsFile=" + file,
		"-oStrictHostKeyChecking=yes",
		"-oVerifyHostKeyDNS=no",
		"-oUpdateHostKeys=no",
	}
}

// usual are those that the user's own, given, come before. A connection that is
// shared could lead to another agent.
func (s Settings) usual(given []option) []string {
	var args []string
	add := func(keyword, value string) {
		if !sets(given, keyword) {
			args = append(args, "-o"+keyword+"="+value)
		}
	}
	add("ServerAliveInterval", fmt.Sprint(s.AliveInterval))
	add("ServerAliveCountMax", fmt.Sprint(s.AliveCount))
	if !sets(given, "ControlPath") && !has(given, 'S') && !sets(given, "ControlMaster") && !has(given, 'M') {
		add("ControlPath", "none")
	}
	return args
}

// File writes a path as the value of an option of ssh that names files.
func File(path string) string {
	path = strings.ReplaceAll(path, "%", "%%")
	if strings.ContainsAny(path, " \t'#\"\\") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
	}
	return path
}

func ssh(t Tool, l Line, s Settings) ([]string, error) {
	before, _ := t.options(l.Before)
	after, _ := t.options(l.After) // up to the command
	given := slices.Concat(before, after)
	destination := s.Host
	if !has(given, 'l') && !sets(given, "User") {
		destination = s.User + "@" + s.Host
	}
	return slices.Concat(s.pinned(), l.Before, s.usual(given), []string{destination}, l.After), nil
}

func sftp(t Tool, l Line, s Settings) ([]string, error) {
	before, _ := t.options(l.Before)
	after, n := t.options(l.After)
	given := slices.Concat(before, after)
	destination := s.Host
	if !sets(given, "User") {
		destination = s.User + "@" + s.Host
	}
	rest := l.After[n:]
	if len(rest) > 0 && rest[0] == "--" {
		rest = rest[1:]
	}
	return slices.Concat(s.pinned(), l.Before, l.After[:n], s.usual(given), []string{destination}, rest), nil
}

func scp(t Tool, l Line, s Settings) ([]string, error) {
	before, _ := t.options(l.Before)
	after, n := t.options(l.After)
	given := slices.Concat(before, after)
	user := s.User
	if sets(given, "User") {
		user = ""
	}
	paths, err := s.paths(l.After[n:], user)
	return slices.Concat(s.pinned(), l.Before, l.After[:n], s.usual(given), paths), err
}

// rsync has options among its paths, and hands ssh's over in one string, which
// it takes apart at spaces outside quotes; a quote inside is doubled.
func rsync(t Tool, l Line, s Settings) ([]string, error) {
	for _, arg := range slices.Concat(l.Before, l.After) {
		if arg == "--" {
			break
		}
		if arg == "--rsh" || strings.HasPrefix(arg, "--rsh=") || t.cluster(arg, 'e') {
			return nil, errors.New("rsync's option -e is taken: put options of ssh's into ~/.ssh/config")
		}
	}
	words := []string{"ssh"}
	for _, arg := range slices.Concat(s.pinned(), s.usual(nil)) {
		words = append(words, `"`+strings.ReplaceAll(arg, `"`, `""`)+`"`)
	}
	paths, err := s.paths(l.After, s.User)
	return slices.Concat([]string{"-e", strings.Join(words, " ")}, l.Before, paths), err
}

// job is how a path at the agent begins.
const job = "job"

// paths writes job:PATH, or USER@job:PATH, as the stock program knows it.
func (s Settings) paths(args []string, user string) ([]string, error) {
	out := slices.Clone(args)
	remote := 0
	for i, arg := range args {
		host, path, ok := strings.Cut(arg, ":")
		own, host, hasUser := cutUser(host)
		if !ok || host != job {
			continue
		}
		remote++
		if !hasUser {
			own = user
		}
		if own != "" {
			own += "@"
		}
		out[i] = own + s.Host + ":" + path
	}
	if remote == 0 && len(args) > 0 {
		return nil, errors.New("none of the paths is one of the job: write it as job:PATH")
	}
	return out, nil
}

func cutUser(s string) (user, host string, ok bool) {
	if i := strings.LastIndex(s, "@"); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return "", s, false
}
