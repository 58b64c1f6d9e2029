// Package alias writes an agent's id as a host name of ssh's, so that whatever
// uses ssh can call the agent by it. It knows nothing of servers and keys.
//
// A slash, which ends the host in a path of scp's and which no host name has,
// becomes two hyphens.
package alias

import (
	"errors"
	"fmt"
	"strings"

	"example.com/converge/pkg/rendezvous"
)

// DefaultDomain ends the names unless the user wants another ending.
const DefaultDomain = "converge"

const separator = "--"

// ErrNone is for an id that has no name.
var ErrNone = errors.New("two hyphens stand for a slash in a name, and the id has such of its own: use the URL")

// Of is the name of an id, without a domain. The error wraps ErrNone or is one
// of an id that is none.
func Of(id string) (string, error) {
	if err := rendezvous.ValidID(id); err != nil {
		return "", err
	}
	name := strings.ReplaceAll(id, "/", separator)
	if strings.ReplaceAll(name, separator, "/") != id {
		return "", fmt.Errorf("the id %s cannot be written as a host name: %w", id, ErrNone)
	}
	return name, nil
}

// ID is the id of a name with its domain, as it was typed: the case of an id's
// letters counts. The error is one sentence.
func ID(name, domain string) (string, error) {
	end := len(name) - len(domain) - 1
	if end < 1 || name[end] != '.' || !strings.EqualFold(name[end+1:], domain) {
		return "", fmt.Errorf("the name %q does not end in .%s: write ID.%s", name, domain, domain)
	}
	id := strings.ReplaceAll(name[:end], separator, "/")
	if again, err := Of(id); err != nil || again != name[:end] {
		return "", fmt.Errorf("the name %q is that of no id: write the id with -- for each / and .%s behind it", name, domain)
	}
	return id, nil
}

// ValidDomain checks a domain: lower-case letters, digits and hyphens, in parts
// separated by dots, each of which starts with a letter or digit.
func ValidDomain(domain string) error {
	if domain == "" || len(domain) > 100 {
		return errors.New("a domain has 1 to 100 characters")
	}
	for part := range strings.SplitSeq(domain, ".") {
		if part == "" || part[0] == '-' || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return errors.New("a domain has lower-case letters, digits and hyphens, in parts separated by dots, such as converge or ci.example")
		}
	}
	return nil
}
