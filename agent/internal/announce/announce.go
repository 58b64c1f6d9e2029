// Package announce words what people read: the lines to paste into a terminal
// and the text that greets them in the job. It decides nothing and prints
// nothing.
package announce

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/pin"
	"example.com/converge/pkg/rendezvous"
)

// Access is all that it takes to reach an agent.
type Access struct {
	Server  rendezvous.Server
	ID      string
	User    string
	HostKey ssh.PublicKey
	// Password is empty where only keys are taken.
	Password string
	// Wsproxy is how the lines call that program: a name or a path.
	Wsproxy string
	// Options are further ssh options for the lines. ssh takes the first of
	// two values, which is theirs.
	Options []string
	// Window is how long the session waits for a client whose connection was
	// lost; 0 is not at all.
	Window time.Duration
}

// aliveInterval is after how long a silence ssh asks for a sign of life, and
// alivePatience how many more silences than fill the window it puts up with.
const (
	aliveInterval = 10 * time.Second
	alivePatience = 6
)

// SSH returns the line that opens a shell.
func (a Access) SSH() string { return a.line("ssh") }

// SFTP returns the line that opens a file transfer.
func (a Access) SFTP() string { return a.line("sftp") }

// URL is the client's, with the agent's host key as its fragment.
func (a Access) URL() string {
	return a.Server.ClientURL(a.ID) + "#" + pin.Of(a.HostKey).String()
}

// line pins the agent's host key: the server in between is not trusted, and
// all agents are called localhost, so that known_hosts is neither read nor
// written, and no connection shared that leads to another agent.
// KnownHostsCommand needs OpenSSH 8.5 and an absolute path. The URL has the key
// too, for wsproxy, which is not to come back to somebody else. By itself ssh
// would give up after three silences.
func (a Access) line(program string) string {
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(a.HostKey)))
	words := []string{program}
	for _, option := range a.Options {
		words = append(words, word(option))
	}
	words = append(words, fmt.Sprintf("-oServerAliveInterval=%d", aliveInterval/time.Second))
	if a.Window > 0 {
		silences := (a.Window + aliveInterval - 1) / aliveInterval
		words = append(words, fmt.Sprintf("-oServerAliveCountMax=%d", silences+alivePatience))
	}
	words = append(words,
		"-oProxyCommand="+quote(percent(pathWord(a.Wsproxy)+" "+shellWord(a.URL()))),
		"-oKnownHostsCommand="+quote("/bin/echo %H "+key),
		"-oStrictHostKeyChecking=yes",
		"-oUserKnownHostsFile=none",
		"-oGlobalKnownHostsFile=none",
		"-oControlPath=none",
		a.User+"@localhost",
	)
	return strings.Join(words, " ")
}

// Fingerprint returns the host key's fingerprint as ssh shows it.
func (a Access) Fingerprint() string {
	kind := strings.TrimPrefix(a.HostKey.Type(), "ssh-")
	return fmt.Sprintf("%s (%s)", ssh.FingerprintSHA256(a.HostKey), kind)
}

// Text returns the announcement for the job's log, with a line break at its
// end.
func (a Access) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nThis job can be entered. Its id is %s\n\n", a.ID)
	fmt.Fprintf(&b, "  %s\n\n  %s\n\n", a.SSH(), a.SFTP())
	if a.Password != "" {
		fmt.Fprintf(&b, "  password: %s\n", a.Password)
	}
	fmt.Fprintf(&b, "  host key: %s\n\n", a.Fingerprint())
	return b.String()
}

// percent doubles the signs that ssh would expand in an option.
func percent(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// plainWord reports whether every shell takes s as it is.
func plainWord(s string) bool {
	return s != "" && !strings.HasPrefix(s, "=") && strings.IndexFunc(s, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("./_-+=:,@%", r)
	}) < 0
}

// shellWord quotes a word, if needed, for the shell by which ssh runs a
// ProxyCommand. ssh counts the command's quotes too, and to it a backslash in
// single quotes is not just another character; in double ones both agree.
func shellWord(s string) string {
	switch {
	case plainWord(s):
		return s
	case strings.Contains(s, `\`):
		return doubleQuote(s)
	}
	return singleQuote(s)
}

// pathWord is shellWord for a path, which may begin in the home of whoever
// pastes the line.
func pathWord(s string) string {
	if rest, ok := strings.CutPrefix(s, "~/"); ok && rest != "" {
		return "~/" + shellWord(rest)
	}
	return shellWord(s)
}

// word quotes an option for the shell that a line is pasted into, if needed.
func word(s string) string {
	if plainWord(s) {
		return s
	}
	return quote(s)
}

// quote puts s in double quotes, which every shell that a line may be pasted
// into understands; but in them an interactive shell takes an exclamation mark
// for a reference to its history, and nothing prevents that but single ones.
func quote(s string) string {
	if strings.Contains(s, "!") {
		return singleQuote(s)
	}
	return doubleQuote(s)
}

func doubleQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s) + `"`
}

func singleQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
