package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

const (
	// maxFile bounds a file of keys, in bytes.
	maxFile = 1 << 20
	// settled is the age from which on a file's modification time tells one
	// version from the next; the coarsest file systems count in 2 s.
	settled = 2 * time.Second
)

// file is a file that is looked at again whenever it matters. Its user guards
// it.
type file struct {
	name string
	// stamp is the file as it was when it was read; nil asks for a new read.
	stamp fs.FileInfo
	// read is when; a stamp that was young then may hide a later change.
	read time.Time
	// once is set for what cannot be read twice, such as a pipe.
	once bool
	// trouble is what was last logged about the file; "" when it is good.
	trouble string
}

// refresh reads the file again if it may have changed, and gives it to take,
// whose error counts as that of the file. It logs trouble, and its end, once.
func (f *file) refresh(log *slog.Logger, what string, take func([]byte) error) {
	if !f.changed() {
		return
	}
	if err := f.load(false, take); err != nil {
		if trouble := err.Error(); trouble != f.trouble {
			f.trouble = trouble
			log.Warn(what, "err", err)
		}
		return
	}
	if f.trouble != "" {
		log.Info("the file can be read again", "file", f.name)
	}
	f.trouble = ""
}

// changed reports whether the file may hold something else than was read.
func (f *file) changed() bool {
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

// load reads the file and gives it to take. What is no regular file is
// accepted only at first, as opening it could block.
func (f *file) load(first bool, take func([]byte) error) error {
	if info, err := os.Stat(f.name); err != nil {
		return readError(f.name, err)
	} else if info.IsDir() || !first && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file: give a file with one public key a line", f.name)
	}
	opened, err := os.Open(f.name)
	if err != nil {
		return readError(f.name, err)
	}
	defer opened.Close()
	// The stamp is taken before the content, so that a change in between is
	// seen the next time.
	stamp, err := opened.Stat()
	if err != nil {
		return readError(f.name, err)
	}
	text, err := io.ReadAll(io.LimitReader(opened, maxFile+1))
	if err != nil {
		return readError(f.name, err)
	}
	if len(text) > maxFile {
		return fmt.Errorf("%s has more than %d KiB: keep only the keys that are needed", f.name, maxFile>>10)
	}
	if err := take(text); err != nil {
		return fmt.Errorf("%s:%w", f.name, err)
	}
	f.stamp, f.read, f.once = stamp, time.Now(), !stamp.Mode().IsRegular()
	return nil
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
