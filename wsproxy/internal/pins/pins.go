// Package pins keeps the host keys of agents, each under the client URL of its
// agent, in a file of wsproxy's own that ssh can read as its known hosts. It
// decides nothing about whom to believe, and connects to nobody.
package pins

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/filelock"
	"example.com/converge/pkg/rendezvous"
)

const (
	// MaxEntries is how many agents are kept; the one that was kept first goes.
	MaxEntries = 1000
	// maxFile bounds the file, in bytes: some four times what that many need.
	maxFile = 4 << 20
	// maxNames bounds the names of one agent.
	maxNames = 8
)

// Entry is one agent.
type Entry struct {
	// URL is its client URL, without a fragment.
	URL string
	// Key is its host key.
	Key ssh.PublicKey
	// Names are what ssh calls it, in lower case; there may be none.
	Names []string
}

// Store is the file. Its methods may be called concurrently, by several
// processes too; each of them reads or writes it as a whole.
type Store struct{ path string }

// DefaultPath is the file that is used unless the user names another one: in
// the folder for the user's configuration of programs.
func DefaultPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("cannot tell where to keep keys: %w: name a file with --pins", err)
	}
	return filepath.Join(dir, "converge", "known_hosts"), nil
}

// New returns the store in a file, which need not be there.
func New(path string) Store { return Store{path} }

// Path is the file's.
func (s Store) Path() string { return s.path }

// TakenError says that ssh would call two agents by one name.
type TakenError struct {
	Name, URL string // of the one that has it
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("the name %s is already that of %s: forget that one with wsproxy pin --forget %s, or use the URL", e.Name, e.URL, e.URL)
}

// Find returns the entry of a client URL.
func (s Store) Find(url string) (Entry, bool, error) {
	entries, err := s.List()
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.URL == url })
	if err != nil || i < 0 {
		return Entry{}, false, err
	}
	return entries[i], true, nil
}

// List returns all entries, the newest last.
func (s Store) List() ([]Entry, error) {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the keys that are kept: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = errors.New("the file is too large")
	}
	var entries []Entry
	if err == nil {
		entries, err = decode(text)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the keys that are kept in %s: %w: mend the file, or remove it", s.path, err)
	}
	return entries, nil
}

// Keep keeps a key under the client URL in place of any other, and adds a name
// unless it is "". A name that another agent has is a *TakenError.
func (s Store) Keep(url string, key ssh.PublicKey, name string) error {
	if _, _, err := rendezvous.ParseClientURL(url); err != nil {
		return err
	}
	name = strings.ToLower(name)
	if name != "" && !validName(name) {
		return fmt.Errorf("%q cannot be the name of an agent", name)
	}
	return s.change(func(entries []Entry) ([]Entry, error) {
		e := Entry{URL: url, Key: key}
		for _, old := range entries {
			switch {
			case old.URL == url:
				e.Names = old.Names
			case name != "" && slices.Contains(old.Names, name):
				return nil, &TakenError{Name: name, URL: old.URL}
			}
		}
		entries = slices.DeleteFunc(entries, func(old Entry) bool { return old.URL == url })
		if name != "" && !slices.Contains(e.Names, name) {
			e.Names = append(slices.Clone(e.Names), name)
			e.Names = e.Names[max(0, len(e.Names)-maxNames):]
		}
		entries = append(entries, e)
		return entries[max(0, len(entries)-MaxEntries):], nil
	})
}

// Forget drops an agent and reports whether it was there.
func (s Store) Forget(url string) (found bool, err error) {
	err = s.change(func(entries []Entry) ([]Entry, error) {
		n := len(entries)
		entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.URL == url })
		found = len(entries) < n
		return entries, nil
	})
	return found, err
}

// change writes the file anew, while no other process does. Who reads it has
// either the old one or the new one.
func (s Store) change(f func([]Entry) ([]Entry, error)) (err error) {
	defer func() {
		var taken *TakenError
		if err != nil && !errors.As(err, &taken) {
			err = fmt.Errorf("cannot keep keys: %w", err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	held, err := filelock.Lock(s.path + ".lock")
	if err != nil {
		return err
	}
	defer held.Close()
	entries, err := s.List()
	if err != nil {
		return err
	}
	if entries, err = f(entries); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(s.path), ".known_hosts-*") // 0600
	if err != nil {
		return err
	}
	_, err = temporary.Write(encode(entries))
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), s.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}

const head = "# Host keys of agents, kept by wsproxy: names, key, client URL.\n"

// nameless stands for the names of an agent that has none: nothing that ssh
// connects to can be called so.
const nameless = "-"

// Line is how ssh's known_hosts file has a key.
func Line(names string, key ssh.PublicKey) string {
	return names + " " + key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal())
}

func encode(entries []Entry) []byte {
	var b bytes.Buffer
	b.WriteString(head)
	for _, e := range entries {
		names := strings.Join(e.Names, ",")
		if names == "" {
			names = nameless
		}
		b.WriteString(Line(names, e.Key) + " " + e.URL + "\n")
	}
	return b.Bytes()
}

// decode reads what encode writes; blank lines and comments do not count.
func decode(text []byte) ([]Entry, error) {
	var entries []Entry
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxFile+1)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		e, err := decodeLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if slices.ContainsFunc(entries, func(o Entry) bool { return o.URL == e.URL }) {
			return nil, fmt.Errorf("line %d: the URL %s comes twice", number, e.URL)
		}
		if entries = append(entries, e); len(entries) > MaxEntries {
			return nil, fmt.Errorf("there are more than %d keys", MaxEntries)
		}
	}
	return entries, lines.Err()
}

func decodeLine(line string) (Entry, error) {
	words := strings.Fields(line)
	if len(words) != 4 {
		return Entry{}, errors.New("it is not NAMES TYPE KEY URL")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(words[2])
	if err != nil {
		return Entry{}, errors.New("its key is not base64")
	}
	e := Entry{URL: words[3]}
	if e.Key, err = ssh.ParsePublicKey(raw); err != nil || e.Key.Type() != words[1] {
		return Entry{}, errors.New("it has no public key")
	}
	server, id, err := rendezvous.ParseClientURL(e.URL)
	if err != nil || server.ClientURL(id) != e.URL {
		return Entry{}, errors.New("it has no client URL")
	}
	if words[0] == nameless {
		return e, nil
	}
	e.Names = strings.Split(words[0], ",")
	if len(e.Names) > maxNames || slices.ContainsFunc(e.Names, func(n string) bool { return !validName(n) }) {
		return Entry{}, errors.New("its names are none")
	}
	return e, nil
}

// validName reports whether ssh takes s for a host and nothing else: no
// pattern, no hash, no marker.
func validName(s string) bool {
	return s != "" && len(s) <= 300 && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._~-") == ""
}
