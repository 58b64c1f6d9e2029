package sftpd

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// openFile is what a handle stands for.
type openFile struct {
	path string
	info os.FileInfo // nil if it could not be told
}

// local is a path as the system knows it. Windows paths come as /C:/folder.
func (f *filter) local(p string) string {
	if !path.IsAbs(p) {
		if f.dir == "" {
			return filepath.FromSlash(p)
		}
		return filepath.Join(f.dir, filepath.FromSlash(p))
	}
	p = filepath.FromSlash(p)
	bare := strings.TrimLeft(p, `\`)
	for _, candidate := range []string{bare, bare + `\`} {
		if bare != p && filepath.IsAbs(candidate) {
			return candidate
		}
	}
	return p
}

// taken reports whether a rename would replace a file. On systems that do not
// tell cases apart, a file can be given its own name in another case.
func (f *filter) taken(from, to string) bool {
	there, err := os.Lstat(f.local(to))
	if err != nil {
		return false
	}
	here, err := os.Lstat(f.local(from))
	return err == nil && !os.SameFile(here, there)
}

// symlink makes a link whose target is what the client says, be it relative or
// absolute. The order of the two paths is OpenSSH's, not that of the draft
// (PROTOCOL §4.1).
func (f *filter) symlink(r request) []byte {
	if f.readOnly {
		return statusPacket(r.id, fxPermissionDenied, "files are read-only here")
	}
	target := filepath.FromSlash(r.first)
	if path.IsAbs(r.first) {
		target = f.local(r.first)
	}
	return errorPacket(r.id, os.Symlink(target, f.local(r.second)))
}

// sync writes a file's data to the disk. The server's own descriptor is out of
// reach, but any other of the same file does.
func (f *filter) sync(r request) []byte {
	if f.readOnly {
		return statusPacket(r.id, fxPermissionDenied, "files are read-only here")
	}
	f.mu.Lock()
	file, ok := f.files[r.first]
	f.mu.Unlock()
	if !ok {
		return statusPacket(r.id, fxFailure, "there is no such handle")
	}
	// Windows flushes only what is open for writing; elsewhere that would
	// look like a change to those who watch the file.
	err := file.sync(os.O_RDONLY)
	if err != nil {
		err = file.sync(os.O_WRONLY)
	}
	return errorPacket(r.id, err)
}

// errMoved is a file whose path has become another's.
var errMoved = errors.New("the file has been renamed or replaced since it was opened: it is not flushed")

func (o openFile) sync(flag int) error {
	if o.info == nil || !o.info.Mode().IsRegular() {
		return errors.New("only files can be flushed")
	}
	file, err := os.OpenFile(o.path, flag, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !os.SameFile(o.info, info):
		return errMoved
	}
	return file.Sync()
}
