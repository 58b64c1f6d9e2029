package announce

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/shellword"
)

// Print is how an announcement is printed.
type Print string

// The ways to print.
const (
	// Lines are the short line and the one for stock ssh.
	Lines Print = "lines"
	// All adds every other way in.
	All Print = "all"
	// JSON is one object on a line, for programs.
	JSON Print = "json"
)

// usualUser is the log-in name that wsproxy takes by itself.
const usualUser = "abc"

// tcptowsPort is the port of the lines with tcptows.
const tcptowsPort = 10000

// Short returns the line that opens a shell with wsproxy, which pins the host
// key by itself.
func (a Access) Short() string { return a.short("ssh") }

// ShortSFTP returns the line that opens a file transfer with wsproxy.
func (a Access) ShortSFTP() string { return a.short("sftp") }

func (a Access) short(program string) string {
	return a.shortBy(shellword.PastePath(a.Wsproxy), program)
}

// shortBy is the short line with wsproxy called so. The URL stands in quotes,
// which zsh, cmd and PowerShell need.
func (a Access) shortBy(wsproxy, program string) string {
	words := []string{wsproxy, program}
	for _, option := range a.Options {
		words = append(words, shellword.Paste(option))
	}
	if a.User != usualUser {
		words = append(words, "-oUser="+a.User)
	}
	return strings.Join(append(words, shellword.Quote(a.URL())), " ")
}

// PublicKey is the host key as in OpenSSH's files, without a comment.
func (a Access) PublicKey() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(a.HostKey)))
}

// Fetch returns the line, for sh and its like, that downloads wsproxy from the
// server, compares it with the server's checksums, and goes in with it. That
// tells a broken download, and no server that hands out a wsproxy of its own.
func (a Access) Fetch() string {
	scheme := "http"
	if a.Server.Secure {
		scheme = "https"
	}
	docs := scheme + "://" + a.Server.Host + a.Server.Prefix + "/docs/"
	return `f=wsproxy-$(uname -s | tr A-Z a-z)-$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/'); ` +
		`curl -fsSo "$f" ` + docQuote(docs+"$f") + ` && curl -fsS ` + docQuote(docs+"SHA256SUMS") + ` | grep " $f\$" | ` +
		`$(command -v sha256sum || echo shasum -a 256) -c && chmod 755 "$f" && ` + a.shortBy(`"./$f"`, "ssh")
}

// docQuote quotes a URL that has a variable in it.
func docQuote(url string) string { return `"` + url + `"` }

// TCP returns the two lines by which any SSH client gets in: one opens a local
// port, the other goes in by it. NoHostAuthenticationForLocalhost, where
// somebody has set it, would skip the check of the key.
func (a Access) TCP() (open, enter string) {
	tcptows := "tcptows"
	if base := path.Base(a.Wsproxy); base == "wsproxy" {
		tcptows = strings.TrimSuffix(a.Wsproxy, base) + tcptows
	}
	open = fmt.Sprintf("%s %d %s", shellword.PastePath(tcptows), tcptowsPort, shellword.Quote(a.URL()))
	return open, a.stock("ssh", fmt.Sprintf("-p %d", tcptowsPort), "-oNoHostAuthenticationForLocalhost=no")
}

// Head is what everybody needs of an announcement, with an empty line before
// and after it.
func (a Access) Head() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nThis job can be entered. Its id is %s\n\n  %s\n\n", a.ID, a.Short())
	if a.Password != "" {
		fmt.Fprintf(&b, "  password: %s\n\n", a.Password)
	}
	return b.String()
}

// Details is the rest, with an empty line after it.
func (a Access) Details(all bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "With stock ssh (OpenSSH 8.5 or newer, not on Windows):\n\n  %s\n\n", a.SSH())
	if all {
		open, enter := a.TCP()
		fmt.Fprintf(&b, "For files:\n\n  %s\n\n  %s\n\n", a.ShortSFTP(), a.SFTP())
		fmt.Fprintf(&b, "With a wsproxy that is downloaded first, and compared with the server's checksums (sh):\n\n  %s\n\n", a.Fetch())
		fmt.Fprintf(&b, "By a local port, for any SSH client: in one terminal, and in another,\n\n  %s\n\n  %s\n\n", open, enter)
	} else {
		b.WriteString("For files write sftp in place of ssh, in either line. agent --print all shows other ways.\n\n")
	}
	fmt.Fprintf(&b, "  host key: %s\n\n", a.Fingerprint())
	return b.String()
}

// Object returns the announcement as one JSON object with a line break behind
// it. expires is when the session ends if nobody comes; the zero time is never.
func (a Access) Object(expires time.Time) string {
	object := struct {
		ID        string     `json:"id"`
		ClientURL string     `json:"client_url"`
		SSH       string     `json:"ssh"`
		SSHStock  string     `json:"ssh_stock"`
		SFTP      string     `json:"sftp"`
		HostKey   string     `json:"host_key"`
		User      string     `json:"user"`
		Password  string     `json:"password,omitempty"`
		Expires   *time.Time `json:"expires"`
	}{
		ID: a.ID, ClientURL: a.URL(), SSH: a.Short(), SSHStock: a.SSH(), SFTP: a.ShortSFTP(),
		HostKey: a.PublicKey(), User: a.User, Password: a.Password,
	}
	if !expires.IsZero() {
		expires = expires.UTC().Truncate(time.Second)
		object.Expires = &expires
	}
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // people paste from it
	_ = encoder.Encode(object)   // of strings and a time: cannot fail
	return b.String()
}

// Waiting is the line that says, now and then, that nobody has come yet.
func Waiting(remaining time.Duration, deadline time.Time) string {
	if deadline.IsZero() {
		return "waiting for somebody to log in"
	}
	return fmt.Sprintf("waiting for somebody to log in, for %s more (until %s)", Span(remaining), At(deadline, remaining))
}
