package keys

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// digest is the SHA-256 of a public key in wire format. Digests all have one
// length, so that comparing them takes the same time whatever the key is.
type digest = [sha256.Size]byte

// refusal is a key that was understood and is not accepted.
type refusal struct {
	line int
	why  string
}

// parse reads text in the format of authorized_keys (sshd(8)): a key a line,
// blank lines and lines that start with # skipped. A line that holds no key is
// an error, which starts with its number. A key of a kind that is not
// accepted, or with an option that the agent cannot keep, is a refusal.
func parse(text []byte) (accepted []digest, refused []refusal, err error) {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, _, options, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			return nil, nil, fmt.Errorf("%d: no public key on this line: write it as ssh-keygen -y prints it, "+
				"or put # before it", number)
		}
		if why := unfit(key); why != "" {
			refused = append(refused, refusal{number, "it is " + why})
			continue
		}
		if option := unkept(options); option != "" {
			refused = append(refused, refusal{number, fmt.Sprintf("its option %q cannot be kept here", option)})
			continue
		}
		accepted = append(accepted, sha256.Sum256(key.Marshal()))
	}
	return accepted, refused, nil
}

// harmless are the options of authorized_keys that may be ignored, because
// they allow what is allowed anyhow, restrict what the agent never does (user
// rc files, X11, tunnels), or ask for a favour that may be denied.
var harmless = map[string]bool{
	"agent-forwarding":  true,
	"environment":       true,
	"no-touch-required": true,
	"no-user-rc":        true,
	"no-x11-forwarding": true,
	"port-forwarding":   true,
	"pty":               true,
	"tunnel":            true,
	"user-rc":           true,
	"x11-forwarding":    true,
}

// unkept returns the name of the first option that restricts a key in a way
// that the agent does not enforce, or "". What is unknown counts as such.
func unkept(options []string) string {
	for _, option := range options {
		name, _, _ := strings.Cut(option, "=")
		if !harmless[strings.ToLower(name)] {
			return name
		}
	}
	return ""
}
