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
	"example.com/converge/pkg/shellword"
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

// SSH returns the line that opens a shell with stock ssh alone.
func (a Access) SSH() string { return a.line("ssh") }

// SFTP returns the line that opens a file transfer with stock sftp alone.
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
	return a.stock(program, "-oProxyCommand="+shellword.Quote(shellword.Percent(shellword.ProxyPath(a.Wsproxy)+" "+shellword.Proxy(a.URL()))))
}

// stock is such a line with one option for the way to the agent.
func (a Access) stock(program string, way ...string) string {
	words := []string{program}
	for _, option := range a.Options {
		words = append(words, shellword.Paste(option))
	}
	words = append(words, fmt.Sprintf("-oServerAliveInterval=%d", aliveInterval/time.Second))
	if a.Window > 0 {
		silences := (a.Window + aliveInterval - 1) / aliveInterval
		words = append(words, fmt.Sprintf("-oServerAliveCountMax=%d", silences+alivePatience))
	}
	words = append(words, way...)
	words = append(words,
		"-oKnownHostsCommand="+shellword.Quote("/bin/echo %H "+a.PublicKey()),
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
