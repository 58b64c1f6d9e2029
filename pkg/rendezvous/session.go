package rendezvous

import (
	"crypto/rand"
	"strings"
)

// sessionLength is that of a session id in characters of five random bits.
const sessionLength = 16

// NewSession makes the id of a client's session, 80 random bits: the same in the
// logs of the server, the agent and the client, and on all servers another one.
// It is no secret and opens nothing.
func NewSession() string { return strings.ToLower(rand.Text()[:sessionLength]) }

// ValidSession reports whether text has the form of a session id, so that it
// may be put into a log whoever has said it.
func ValidSession(text string) bool {
	if len(text) != sessionLength {
		return false
	}
	for i := range len(text) {
		if c := text[i]; (c < 'a' || 'z' < c) && (c < '2' || '7' < c) {
			return false
		}
	}
	return true
}
