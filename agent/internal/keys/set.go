package keys

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// maxFile bounds a file of authorized keys, in bytes.
	maxFile = 1 << 20
	// settled is the age from which on a file's modification time tells one
	// version from the next; the coarsest file systems count in 2 s.
	settled = 2 * time.Second
)

// Set is the set of public keys that may log in. Files are looked at again at
// every question, so that a key appended to one is good for the next login,
// and a key removed from it is not. It is safe for concurrent use.
//
// Lines are those of OpenSSH's authorized_keys. Options that allow something,
// or restrict what the agent never does, are ignored (agent-forwarding,
// environment=, no-touch-required, no-user-rc, no-x11-forwarding,
// port-forwarding, pty, tunnel=, user-rc, x11-forwarding). A key with any
// other option (restrict, from=, command=, no-pty, expiry-time=, …) is not
// accepted, with a warning in the log: to ignore a restriction would open more
// than its author meant. Neither are certificates, DSA keys, and RSA keys of
// less than 2048 bits.
type Set struct {
	log      *slog.Logger
	literals []digest

	mu    sync.Mutex
	files []*keyFile
}

// keyFile is one file and what it held when it was last good.
type keyFile struct {
	name string
	keys []digest
	// stamp is the file as it was when it was read; nil asks for a new read.
	stamp fs.FileInfo
	// read is when; a stamp that was young then may hide a later change.
	read time.Time
	// once is set for what cannot be read twice, such as a pipe.
	once bool
	// trouble is what was last logged about the file; "" when it is good.
	trouble string
}

// NewSet reads the files and the literals, each of which is a line as in a
// file. A file that cannot be read, is larger than 1 MiB, or has a line
// without a key is an error of one sentence, which names the file and line.
// What is no regular file, such as a pipe, is read once. A nil logger discards.
func NewSet(files, literals []string, logger *slog.Logger) (*Set, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	s := &Set{log: logger}
	for i, literal := range literals {
		name := fmt.Sprintf("authorized key %d", i+1)
		if len(literal) > maxFile {
			return nil, fmt.Errorf("%s has more than %d bytes: give one public key", name, maxFile)
		}
		accepted, refused, err := parse([]byte(literal))
		if err != nil {
			return nil, fmt.Errorf("%s:%w", name, err)
		}
		s.warn(name, refused)
		s.literals = append(s.literals, accepted...)
	}
	for _, name := range files {
		f := &keyFile{name: name}
		refused, err := f.load(true)
		if err != nil {
			return nil, fmt.Errorf("cannot use the authorized keys: %w", err)
		}
		s.warn(name, refused)
		s.files = append(s.files, f)
	}
	return s, nil
}

// Empty reports whether nothing was configured, neither file nor literal. A
// file that holds no key yet is something. A nil Set is empty.
func (s *Set) Empty() bool {
	return s == nil || len(s.files) == 0 && len(s.literals) == 0
}

// Allows reports whether the key may log in. It looks at each file first and
// reads those that changed in time, size or identity; a file that has become
// unreadable or broken keeps its last good keys, and the log says so once. The
// time of the comparison depends on the number of keys only.
func (s *Set) Allows(key ssh.PublicKey) bool {
	if s == nil || key == nil {
		return false
	}
	sum := sha256.Sum256(key.Marshal())
	found := compare(s.literals, sum)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		s.refresh(f)
		found |= compare(f.keys, sum)
	}
	return found == 1
}

// compare is 1 when sum is among the keys. It always looks at all of them.
func compare(keys []digest, sum digest) int {
	found := 0
	for i := range keys {
		found |= subtle.ConstantTimeCompare(keys[i][:], sum[:])
	}
	return found
}

// refresh reads a file again if it may have changed. The caller holds mu.
func (s *Set) refresh(f *keyFile) {
	if !f.changed() {
		return
	}
	refused, err := f.load(false)
	if err != nil {
		if trouble := err.Error(); trouble != f.trouble {
			f.trouble = trouble
			s.log.Warn("authorized keys stay as they were: the file cannot be used", "err", err)
		}
		return
	}
	if f.trouble != "" {
		s.log.Info("authorized keys can be read again", "file", f.name)
	}
	f.trouble = ""
	s.warn(f.name, refused)
}

// changed reports whether the file may hold something else than was read.
func (f *keyFile) changed() bool {
	if f.once {
		return false
	}
	now, err := os.Stat(f.name)
	if err != nil || f.stamp == nil {
		return true
	}
	return !os.SameFile(now, f.stamp) || now.Size() != f.stamp.Size() ||
		!now.ModTime().Equal(f.stamp.ModTime()) ||
		f.read.Sub(f.stamp.ModTime()) < settled
}

// load reads the file. It changes the keys only when all of it is good. What
// is no regular file is accepted only at first, as opening it could block.
func (f *keyFile) load(first bool) ([]refusal, error) {
	if info, err := os.Stat(f.name); err != nil {
		return nil, readError(f.name, err)
	} else if info.IsDir() || !first && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file: give a file with one public key a line", f.name)
	}
	file, err := os.Open(f.name)
	if err != nil {
		return nil, readError(f.name, err)
	}
	defer file.Close()
	// The stamp is taken before the content, so that a change in between is
	// seen the next time.
	stamp, err := file.Stat()
	if err != nil {
		return nil, readError(f.name, err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, readError(f.name, err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s has more than %d KiB: keep only the keys that are needed", f.name, maxFile>>10)
	}
	accepted, refused, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", f.name, err)
	}
	f.keys, f.stamp, f.read, f.once = accepted, stamp, time.Now(), !stamp.Mode().IsRegular()
	return refused, nil
}

// readError is the sentence for a file that cannot be read.
func readError(name string, err error) error {
	// The name stands at the front already.
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s cannot be read (%w): give a file that exists and that this user may read", name, err)
}

// warn logs the keys that are in a file and are not accepted.
func (s *Set) warn(name string, refused []refusal) {
	for _, r := range refused {
		s.log.Warn("an authorized key is not accepted", "key", fmt.Sprintf("%s:%d", name, r.line), "reason", r.why)
	}
}
