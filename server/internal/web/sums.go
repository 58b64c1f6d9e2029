package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"
)

const (
	// maxHashing bounds how many files are hashed at a time, whoever asks.
	maxHashing = 2

	// hashChunk is how much is hashed between two looks at the context.
	hashChunk = 1 << 20

	// settleTime is how far a file's modification time must be from the clock
	// before its checksum is remembered: within the granularity of the file
	// system's clock (2 s on FAT) a second write may leave the same time.
	settleTime = 2 * time.Second
)

var (
	// errChanging says that a file was written to while it was hashed.
	errChanging = errors.New("the file changed while its checksum was computed")

	// errUnreadable says that a file was there but could not be read.
	errUnreadable = errors.New("read the file")
)

// sums remembers the checksums of a fixed set of files. Each is computed by
// the first who asks, in that one's goroutine, while the others who ask for
// the same file wait; it is computed again when the file has another size,
// modification time or identity.
type sums struct {
	hashing chan struct{} // holds one token per file being hashed
	entries map[string]*sumEntry
	newHash func() hash.Hash // counted by tests
}

type sumEntry struct {
	turn chan struct{} // a lock that a context can give up on; guards the rest
	info fs.FileInfo   // what sum was computed of; nil if nothing is remembered
	sum  string
}

func newSums(names []string) *sums {
	s := &sums{
		hashing: make(chan struct{}, maxHashing),
		entries: make(map[string]*sumEntry, len(names)),
		newHash: sha256.New,
	}
	for _, name := range names {
		s.entries[name] = &sumEntry{turn: make(chan struct{}, 1)}
	}
	return s
}

// of returns the SHA-256 sum in lower-case hex of f, which is the open file of
// that name and has just been found to be info. f is left at its beginning.
func (s *sums) of(ctx context.Context, name string, f *os.File, info fs.FileInfo) (string, error) {
	e := s.entries[name]
	if err := acquire(ctx, e.turn); err != nil {
		return "", err
	}
	defer func() { <-e.turn }()
	if e.info != nil && unchanged(e.info, info) {
		return e.sum, nil
	}
	if err := acquire(ctx, s.hashing); err != nil {
		return "", err
	}
	defer func() { <-s.hashing }()

	e.info = nil
	sum, err := s.compute(ctx, f)
	if err != nil {
		return "", err
	}
	after, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if !unchanged(info, after) {
		return "", errChanging
	}
	if time.Since(info.ModTime()).Abs() > settleTime {
		e.info, e.sum = info, sum
	}
	return sum, nil
}

func (s *sums) compute(ctx context.Context, f *os.File) (string, error) {
	h := s.newHash()
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		_, err := io.CopyN(h, f, hashChunk)
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", errUnreadable, err)
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func acquire(ctx context.Context, tokens chan struct{}) error {
	select {
	case tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unchanged reports whether b is the file that a was, as far as can be seen
// from outside.
func unchanged(a, b fs.FileInfo) bool {
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}
