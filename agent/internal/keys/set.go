package keys

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Set is who may log in by key: the public keys of files, literals and
// sources, and the certificates of trusted authorities. Files are looked at
// again at every question, so that a key appended to one is good for the next
// login, and a key removed from it is not. It is safe for concurrent use.
//
// Lines are those of OpenSSH's authorized_keys. no-touch-required is kept.
// Options that allow something, or restrict what the agent never does, are
// ignored (agent-forwarding, environment=, no-user-rc, no-x11-forwarding,
// port-forwarding, pty, tunnel=, user-rc, x11-forwarding). A key with any
// other option (restrict, from=, command=, no-pty, expiry-time=,
// verify-required, …) is not accepted, with a warning in the log: to ignore a
// restriction would open more than its author meant. Neither are certificates
// in such a line, DSA keys, and RSA keys of less than 2048 bits.
type Set struct {
	log      *slog.Logger
	literals []entry
	sources  []Source
	// authorities is nil where no certificate is accepted.
	authorities *authorities
	// revoked is nil where nothing is.
	revoked *revocations

	mu    sync.Mutex
	files []*keyFile
}

// Source is a further place that keys come from. It is safe for concurrent
// use and answers at once.
type Source interface {
	// Owner tells whose the key with that digest is, if it may log in now.
	Owner(sum Digest) (owner string, ok bool)
}

// Config says who may log in.
type Config struct {
	// Files and Literals are authorized keys: files with one a line, and lines
	// as in such a file.
	Files, Literals []string
	// Sources are asked for every key.
	Sources []Source
	// Authorities sign user certificates: names of files with one public key a
	// line, or such lines.
	Authorities []string
	// Principals are the names of which a certificate must hold one; none is
	// the login name.
	Principals []string
	// Revoked is a file of keys and certificates that may not log in.
	Revoked string
	// Logger is told of keys that are not accepted; nil discards.
	Logger *slog.Logger
}

// Grant is what a login by key may do.
type Grant struct {
	// Owner tells whose the key is, where its source knows: a user of a forge, a
	// certificate's key id, or the comment behind a key. It is for logs;
	// certificates and comments can hold anything.
	Owner string
	// NoTouch accepts the signature of a hardware key that nobody touched.
	NoTouch bool
	// ForceCommand is run in place of whatever the user asks for; "" is none.
	ForceCommand string
	// NoPTY, NoPortForwarding and NoAgentForwarding refuse terminals, the
	// forwarding of ports and sockets, and that of key agents.
	NoPTY, NoPortForwarding, NoAgentForwarding bool
}

// keyFile is one file and the keys that it held when it was last good.
type keyFile struct {
	file
	keys []entry
}

// take replaces the keys if all of the text is good.
func (f *keyFile) take(warn func(string, []refusal)) func([]byte) error {
	return func(text []byte) error {
		accepted, refused, err := parse(text)
		if err != nil {
			return err
		}
		f.keys = accepted
		warn(f.name, refused)
		return nil
	}
}

// New reads the files and the literals. A file that cannot be read, is larger
// than 1 MiB, or has a line without a key is an error of one sentence, which
// names the file and line. What is no regular file, such as a pipe, is read
// once.
func New(cfg Config) (*Set, error) {
	s := &Set{log: cfg.Logger, sources: cfg.Sources}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.literals, err = s.readLiterals("authorized key", cfg.Literals); err != nil {
		return nil, err
	}
	if s.files, err = s.readFiles(cfg.Files); err != nil {
		return nil, fmt.Errorf("cannot use the authorized keys: %w", err)
	}
	if s.authorities, err = s.readAuthorities(cfg.Authorities, cfg.Principals); err != nil {
		return nil, err
	}
	if s.revoked, err = readRevocations(cfg.Revoked, s.log); err != nil {
		return nil, err
	}
	return s, nil
}

// NewSet is New for files and literals.
func NewSet(files, literals []string, logger *slog.Logger) (*Set, error) {
	return New(Config{Files: files, Literals: literals, Logger: logger})
}

// readLiterals reads lines from the command line; what names them in messages.
func (s *Set) readLiterals(what string, literals []string) ([]entry, error) {
	var all []entry
	for i, literal := range literals {
		name := fmt.Sprintf("%s %d", what, i+1)
		if len(literal) > maxFile {
			return nil, fmt.Errorf("%s has more than %d bytes: give one public key", name, maxFile)
		}
		accepted, refused, err := parse([]byte(literal))
		if err != nil {
			return nil, fmt.Errorf("%s:%w", name, err)
		}
		s.warn(name, refused)
		all = append(all, accepted...)
	}
	return all, nil
}

func (s *Set) readFiles(names []string) ([]*keyFile, error) {
	var all []*keyFile
	for _, name := range names {
		f := &keyFile{file: file{name: name}}
		if err := f.load(true, f.take(s.warn)); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// Empty reports whether nothing was configured that could ever let anybody in.
// A file that holds no key yet, and a source that has none yet, are something.
// A nil Set is empty.
func (s *Set) Empty() bool {
	return s == nil || len(s.files) == 0 && len(s.literals) == 0 && len(s.sources) == 0 && s.authorities == nil
}

// Allows reports whether a key may log in as nobody in particular: see Grant.
func (s *Set) Allows(key ssh.PublicKey) bool {
	_, ok := s.Grant("", key)
	return ok
}

// Grant reports whether the key, or certificate, may log in under the name
// user, and what it may do then. It looks at each file first and reads those
// that changed in time, size or identity; a file that has become unreadable or
// broken keeps its last good keys, and the log says so once; only a file of
// revocations that cannot be read lets nobody in. The time of the comparison
// with plain keys depends on their number only.
//
// Which names may log in is not the Set's concern: user matters only where a
// certificate must hold it.
func (s *Set) Grant(user string, key ssh.PublicKey) (Grant, bool) {
	if s == nil || key == nil {
		return Grant{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revoked.holds(key) {
		return Grant{}, false
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		return s.certificate(user, cert)
	}
	return s.plain(Sum(key))
}

// plain looks for a key among all that there are. The caller holds mu.
func (s *Set) plain(sum Digest) (Grant, bool) {
	found, touch := compare(s.literals, sum)
	for _, f := range s.files {
		s.refresh(f)
		inFile, touchInFile := compare(f.keys, sum)
		found |= inFile
		touch |= touchInFile
	}
	var grant Grant
	if found == 1 {
		grant.Owner = s.comment(sum)
	}
	for _, source := range s.sources {
		if owner, ok := source.Owner(sum); ok {
			grant.Owner, found, touch = owner, 1, 1
		}
	}
	grant.NoTouch = touch == 0
	return grant, found == 1
}

// comment words what stands behind a key, "" if nothing does. The caller holds
// mu.
func (s *Set) comment(sum Digest) string {
	lists := [][]entry{s.literals}
	for _, f := range s.files {
		lists = append(lists, f.keys)
	}
	for _, e := range slices.Concat(lists...) {
		if e.sum == sum && e.comment != "" {
			return fmt.Sprintf("key %q", printable(e.comment))
		}
	}
	return ""
}

// compare says whether sum is among the keys (1), and whether any of its lines
// wants a touch (1). It always looks at all of them.
func compare(keys []entry, sum Digest) (found, touch int) {
	for i := range keys {
		same := subtle.ConstantTimeCompare(keys[i].sum[:], sum[:])
		found |= same
		if !keys[i].noTouch {
			touch |= same
		}
	}
	return found, touch
}

// refresh reads a file again if it may have changed. The caller holds mu.
func (s *Set) refresh(f *keyFile) {
	f.file.refresh(s.log, "authorized keys stay as they were: the file cannot be used", f.take(s.warn))
}

// warn logs the keys that are in a file and are not accepted.
func (s *Set) warn(name string, refused []refusal) {
	for _, r := range refused {
		s.log.Warn("an authorized key is not accepted", "key", fmt.Sprintf("%s:%d", name, r.line), "reason", r.why)
	}
}
