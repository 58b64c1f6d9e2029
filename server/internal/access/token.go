package access

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Static tokens.
const (
	// tokenPrefix lets people, and programs that look for leaked secrets, see
	// what a token is.
	tokenPrefix = "cvg_"
	tokenBytes  = 32
	tokenLength = len(tokenPrefix) + 43 // base64url of tokenBytes
	hashPrefix  = "sha256:"
	// maxTokens and maxFile bound a token file; the latter a policy, too.
	maxTokens = 4096
	maxFile   = 1 << 20
)

// Role is what somebody does with the server.
type Role string

// The roles.
const (
	Agent  Role = "agent"
	Client Role = "client"
	// Viewer looks at the sessions page: at the agents whose ids it may see.
	Viewer Role = "viewer"
)

var roles = []Role{Agent, Client, Viewer}

// ParseRoles reads one role or several, with commas between them.
func ParseRoles(text string) ([]Role, error) {
	var found []Role
	for word := range strings.SplitSeq(text, ",") {
		role := Role(word)
		switch {
		case !slices.Contains(roles, role):
			return nil, fmt.Errorf("the role %q is none: it must be agent, client or viewer, or several of them with commas between", text)
		case slices.Contains(found, role):
			return nil, fmt.Errorf("the role %q is there twice", role)
		}
		found = append(found, role)
	}
	return found, nil
}

// token is a line of a token file.
type token struct {
	name  string
	roles []Role
	hash  [sha256.Size]byte
	ids   []idPattern // none means all
}

// may reports whether the token is good for an id.
func (t *token) may(id string) bool {
	return len(t.ids) == 0 || slices.ContainsFunc(t.ids, func(p idPattern) bool { return p.matches(id, nil) })
}

// tokens are those of a file.
type tokens []*token

// find returns the token that a credential is, or nil. How long it takes does
// not depend on how much of a hash is right, nor on which line it is.
func (ts tokens) find(credential string) *token {
	if !isToken(credential) {
		return nil
	}
	sum := sha256.Sum256([]byte(credential))
	at := -1
	for i, t := range ts {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(t.hash[:], sum[:]), i, at)
	}
	if at < 0 {
		return nil
	}
	return ts[at]
}

// same returns the token of that name if it still has that hash.
func (ts tokens) same(old *token) *token {
	for _, t := range ts {
		if t.name == old.name && t.hash == old.hash {
			return t
		}
	}
	return nil
}

// isToken reports whether a credential has the form of a static token. What
// has not, such as a password that somebody chose, is none whatever its hash:
// the hashes are safe at rest because tokens have 256 random bits.
func isToken(credential string) bool {
	text, ok := strings.CutPrefix(credential, tokenPrefix)
	if !ok || len(credential) != tokenLength {
		return false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(b) == tokenBytes
}

var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// MakeToken makes a token and the line of a token file that lets it in. The
// token itself is nowhere else.
func MakeToken(name string, roles []Role, ids []string) (token, line string, err error) {
	if !tokenName.MatchString(name) {
		return "", "", fmt.Errorf("the token's name %q must be 1 to 64 letters, digits and . _ @ -, and begin with a letter or digit", name)
	}
	for _, id := range ids {
		if _, err := newIDPattern(id, false); err != nil {
			return "", "", err
		}
	}
	var b [tokenBytes]byte
	_, _ = rand.Read(b[:]) // never fails: the process would end
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(token))
	words := make([]string, len(roles))
	for i, role := range roles {
		words[i] = string(role)
	}
	line = strings.Join(append([]string{name, strings.Join(words, ","), hashPrefix + hex.EncodeToString(sum[:])}, ids...), " ")
	if _, err := parseTokens([]byte(line)); err != nil {
		return "", "", fmt.Errorf("cannot make a token: %w", err)
	}
	return token, line, nil
}

// parseTokens reads a token file: lines of NAME ROLE HASH [ID-PATTERN…]; blank
// lines and those that begin with # do not count. Its errors name the line and
// hold nothing of a word that may be a secret in the wrong place.
func parseTokens(text []byte) (tokens, error) {
	var ts tokens
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxFile+1)
	for number := 1; lines.Scan(); number++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		t, err := parseToken(words)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		for _, other := range ts {
			if other.name == t.name || other.hash == t.hash {
				return nil, fmt.Errorf("line %d: its name or its hash is that of another line, %q: each token has its own", number, other.name)
			}
		}
		if ts = append(ts, t); len(ts) > maxTokens {
			return nil, fmt.Errorf("there are more than %d tokens", maxTokens)
		}
	}
	return ts, lines.Err()
}

func parseToken(words []string) (*token, error) {
	if len(words) < 3 {
		return nil, fmt.Errorf("it is not NAME ROLE HASH: make it with server --make-token NAME")
	}
	t := &token{name: words[0]}
	if !tokenName.MatchString(t.name) {
		return nil, fmt.Errorf("it does not begin with a name: 1 to 64 letters, digits and . _ @ -")
	}
	var err error
	if t.roles, err = ParseRoles(words[1]); err != nil {
		return nil, fmt.Errorf("the second word of %q is no role: agent, client or viewer, or several of them with commas between", t.name)
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(words[2], hashPrefix))
	if err != nil || len(sum) != sha256.Size || !strings.HasPrefix(words[2], hashPrefix) {
		return nil, fmt.Errorf("the third word of %q is no hash, %s and 64 hexadecimal digits: make it with server --make-token NAME", t.name, hashPrefix)
	}
	copy(t.hash[:], sum)
	for _, word := range words[3:] {
		p, err := newIDPattern(word, false)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", t.name, err)
		}
		t.ids = append(t.ids, p)
	}
	return t, nil
}
