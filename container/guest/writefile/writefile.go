// Package writefile is the guest's mode write-file: it makes a file of its standard
// input, all of it or nothing.
package writefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"example.com/converge/container/guest/mode"
)

// maxLinks is how many symbolic links are followed, as by the kernel.
const maxLinks = 40

// Run writes what it reads from in to the file that args name. Either the file has
// all of it at the end, is on the disk and has mode 0600, or it is what it was.
func Run(args []string, in io.Reader) error {
	if len(args) != 1 || args[0] == "" {
		return mode.Usagef("write-file takes one argument, the path of the file")
	}
	path, err := follow(args[0])
	if err == nil {
		err = write(path, in)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", args[0], err)
	}
	return nil
}

// follow is what a path leads to: a link stays one.
func follow(path string) (string, error) {
	for range maxLinks {
		to, err := os.Readlink(path)
		if err != nil { // no link, or nothing yet
			return path, nil
		}
		if !filepath.IsAbs(to) {
			to = folder(path) + string(filepath.Separator) + to
		}
		path = to
	}
	return "", errors.New("too many symbolic links")
}

// folder is where a path's last element lies. It is not package filepath's, which
// takes away what .. follows, though that may be a link to elsewhere.
func folder(path string) string {
	dir, _ := filepath.Split(path)
	if dir == "" {
		return "."
	}
	return dir
}

func write(path string, in io.Reader) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	// Beside the file, since renaming works within one file system only. The mode
	// is 0600 from the start.
	temp, err := os.CreateTemp(folder(path), ".write-file-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = temp.Close()
			_ = os.Remove(temp.Name())
		}
	}()
	if _, err := io.Copy(temp, in); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	err = os.Rename(temp.Name(), path)
	if isMountPoint(err) {
		return over(path, temp)
	}
	if err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	syncFolder(folder(path))
	return nil
}

// over writes over a file that cannot be replaced, since it is mounted by itself, as
// engines do with /etc/hosts. By now all of the content is there. If there is no
// room for it where the file is, what was there comes back.
func over(path string, temp *os.File) (err error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	old, err := os.CreateTemp(filepath.Dir(temp.Name()), ".write-file-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close(), os.Remove(old.Name())) }()
	if _, err := io.Copy(old, file); err != nil {
		return err
	}
	if err := fill(file, temp); err != nil {
		return errors.Join(err, fill(file, old))
	}
	return errors.Join(file.Chmod(0o600), temp.Close(), os.Remove(temp.Name()))
}

// fill makes a file what another one is. It gives back no room before it has taken
// it, so that what was there fits in again.
func fill(file, content *os.File) error {
	for _, f := range []*os.File{file, content} {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	n, err := io.Copy(file, content)
	if err != nil {
		return err
	}
	if err := file.Truncate(n); err != nil {
		return err
	}
	return file.Sync()
}

// syncFolder brings the new name to the disk, where the file system can.
func syncFolder(path string) {
	if dir, err := os.Open(path); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}
