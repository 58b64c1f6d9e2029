// Package writefile is the guest's mode write-file: it makes a file of its standard
// input, all of it or nothing.
package writefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
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
// engines do with /etc/hosts. By now all of the content is there.
func over(path string, temp *os.File) error {
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, temp)
	err = errors.Join(err, file.Chmod(0o600), file.Sync(), file.Close(), temp.Close())
	if err != nil {
		return err
	}
	if err := os.Remove(temp.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncFolder brings the new name to the disk, where the file system can.
func syncFolder(path string) {
	if dir, err := os.Open(path); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}
