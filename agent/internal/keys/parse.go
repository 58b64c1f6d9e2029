package keys

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Digest is the SHA-256 of a public key in wire format (RFC 4253 §6.6).
// Digests all have one length, so that comparing them takes the same time
// whatever the key is.
type Digest = [sha256.Size]byte

// Sum returns the digest of a key.
func Sum(key ssh.PublicKey) Digest { return sha256.Sum256(key.Marshal()) }

// entry is a key that may log in.
type entry struct {
	sum Digest
	// noTouch waives the touch of a hardware key.
	noTouch bool
	// comment is what follows the key on its line.
	comment string
}

// refusal is a key that was understood and is not accepted.
type refusal struct {
	line int
	why  string
}

// parse reads text in the format of authorized_keys (sshd(8)): a key a line,
// blank lines and lines that start with # skipped. A line that holds no key is
// an error, which starts with its number. A key of a kind that is not
// accepted, or with an option that the agent cannot keep, is a refusal.
func parse(text []byte) (accepted []entry, refused []refusal, err error) {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, comment, options, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			return nil, nil, fmt.Errorf("%d: no public key on this line: write it as ssh-keygen -y prints it, "+
				"or put # before it", number)
		}
		if why := unfit(key); why != "" {
			refused = append(refused, refusal{number, "it is " + why})
			continue
		}
		noTouch, option := readOptions(options)
		if option == certAuthority {
			refused = append(refused, refusal{number, "it is that of a certificate authority: give it as --trusted-user-ca"})
			continue
		}
		if option != "" {
			refused = append(refused, refusal{number, fmt.Sprintf("its option %q cannot be kept here", option)})
			continue
		}
		accepted = append(accepted, entry{Sum(key), noTouch, comment})
	}
	return accepted, refused, nil
}

const (
	noTouchRequired = "no-touch-required"
	certAuthority   = "cert-authority"
)

// harmless are the options of authorized_keys that may be ignored, because
// they allow what is allowed anyhow, restrict what the agent never does (user
// rc files, X11, tunnels), or ask for a favour that may be denied.
var harmless = map[string]bool{
	"agent-forwarding":  true,
	"environment":       true,
	"no-user-rc":        true,
	"no-x11-forwarding": true,
	"port-forwarding":   true,
	"pty":               true,
	"tunnel":            true,
	"user-rc":           true,
	"x11-forwarding":    true,
}

// readOptions looks for the one option that is kept, and returns in unkept
// the name of the first that restricts a key in a way that the agent does not
// enforce, or "". What is unknown counts as such.
func readOptions(options []string) (noTouch bool, unkept string) {
	for _, option := range options {
		name, _, _ := strings.Cut(option, "=")
		switch name = strings.ToLower(name); {
		case name == noTouchRequired:
			noTouch = true
		case !harmless[name]:
			return noTouch, name
		}
	}
	return noTouch, ""
}

// ErrNoKey is returned by ParseBare for a line that holds no bare key.
var ErrNoKey = errors.New("no public key")

// ParseBare reads a line of a list that somebody else wrote: a key type, the
// key in base64, and perhaps a comment. Anything before the type, such as an
// option, is an error, and so is a certificate, whatever the options would
// mean. The error wraps ErrNoKey, or says why the key is of a kind that is not
// accepted.
func ParseBare(line []byte) (ssh.PublicKey, error) {
	fields := bytes.Fields(line)
	if len(fields) < 2 {
		return nil, fmt.Errorf("%w on this line", ErrNoKey)
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey(bytes.Join(fields[:2], []byte(" ")))
	if err != nil || len(options) != 0 || len(rest) != 0 || key.Type() != string(fields[0]) {
		return nil, fmt.Errorf("%w at the start of this line", ErrNoKey)
	}
	if why := unfit(key); why != "" {
		return nil, fmt.Errorf("it is %s", why)
	}
	return key, nil
}
