package forgekeys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/converge/agent/internal/keys"
)

// Limits of what a forge may send.
const (
	// maxPage is the most that is read of one answer, in bytes.
	maxPage = 1 << 20
	// maxUserKeys is how many keys one user, or one URL, may have.
	maxUserKeys = 200
	// maxMembers is how many members a team may have.
	maxMembers = 200
	// maxPages is how many pages of a list are asked for.
	maxPages = 20
)

// developer is the lowest role of a GitLab group's member who counts: the
// lowest that may push and start pipelines.
const developer = 30

// errNotKeys is an answer that is something else than a list of keys.
var errNotKeys = errors.New("it answered with something else than public keys")

// skipped is a line of a list that was understood and is not accepted.
type skipped struct {
	line int
	why  string
}

// decodeLines reads a list of bare keys, one a line; blank lines, and those
// that start with #, are passed over. A key of a kind that is not accepted is
// skipped, and so is a line with anything before the key, such as an option:
// who may log in, and how, is not for the forge to say. A list that has lines
// and not one key is an error: a page for people, most likely.
func decodeLines(text []byte) (list []keys.Digest, left []skipped, err error) {
	number, strange := 0, 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := keys.ParseBare(line)
		if err != nil {
			if errors.Is(err, keys.ErrNoKey) {
				strange++
			}
			left = append(left, skipped{number, err.Error()})
			continue
		}
		if list = append(list, keys.Sum(key)); len(list) > maxUserKeys {
			return nil, nil, fmt.Errorf("it has more than %d keys", maxUserKeys)
		}
	}
	if strange > 0 && strange == len(left) && len(list) == 0 {
		return nil, nil, errNotKeys
	}
	return list, left, nil
}

// apiKey is one key of a user, as the APIs of GitHub, GitLab and Gitea have it.
type apiKey struct {
	Key string `json:"key"`
	// ExpiresAt and UsageType are GitLab's.
	ExpiresAt string `json:"expires_at"`
	UsageType string `json:"usage_type"`
}

// decodeKeys reads a page of a user's keys. count is the number of elements.
func decodeKeys(text []byte, now time.Time) (list []keys.Digest, left []skipped, count int, err error) {
	var page []apiKey
	if err := json.Unmarshal(text, &page); err != nil {
		return nil, nil, 0, errNotKeys
	}
	for i, k := range page {
		if why := k.unusable(now); why != "" {
			left = append(left, skipped{i + 1, why})
			continue
		}
		key, err := keys.ParseBare([]byte(k.Key))
		if err != nil {
			left = append(left, skipped{i + 1, err.Error()})
			continue
		}
		list = append(list, keys.Sum(key))
	}
	return list, left, len(page), nil
}

// unusable says why a key is not for logging in now.
func (k apiKey) unusable(now time.Time) string {
	if strings.ContainsAny(k.Key, "\r\n") {
		return "it has more than one line"
	}
	if k.UsageType == "signing" {
		return "it is for signing only"
	}
	if k.ExpiresAt != "" {
		end, err := time.Parse(time.RFC3339, k.ExpiresAt)
		if err != nil {
			return "its end cannot be read"
		}
		if !now.Before(end) {
			return "it has expired"
		}
	}
	return ""
}

// member is one member of a team, as the three APIs have it.
type member struct {
	Login    string `json:"login"`    // GitHub, Gitea
	Username string `json:"username"` // GitLab, Gitea
	// Type is GitHub's: User, Bot, Organization.
	Type string `json:"type"`
	// State, AccessLevel, ExpiresAt and MembershipState are GitLab's.
	State           string `json:"state"`
	AccessLevel     int    `json:"access_level"`
	ExpiresAt       string `json:"expires_at"` // a day
	MembershipState string `json:"membership_state"`
}

// decodeMembers reads a page of a team's members and returns the names of
// those who count. count is the number of elements.
func decodeMembers(text []byte, forge Forge, now time.Time) (names []string, count int, err error) {
	var page []member
	if err := json.Unmarshal(text, &page); err != nil {
		return nil, 0, errors.New("it answered with something else than a list of members")
	}
	for _, m := range page {
		name := m.Login
		if forge == GitLab {
			name = m.Username
		}
		if m.counts(forge, now) && userName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names, len(page), nil
}

// counts reports whether a member may log in.
func (m member) counts(forge Forge, now time.Time) bool {
	switch forge {
	case GitHub:
		return m.Type == "User"
	case GitLab:
		if m.State != "active" || m.AccessLevel < developer || m.MembershipState != "" && m.MembershipState != "active" {
			return false
		}
		if m.ExpiresAt == "" {
			return true
		}
		end, err := time.Parse(time.DateOnly, m.ExpiresAt)
		return err == nil && now.Before(end)
	}
	return true
}
