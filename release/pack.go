package main

import (
	"archive/tar"
	"archive/zip"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// entry is one file or folder of an archive.
type entry struct {
	// name is slash-separated, and ends in a slash for a folder.
	name, from string
	mode       fs.FileMode
	size       int64
}

// archiver writes entries in one format.
type archiver interface {
	add(e entry, when time.Time) (io.Writer, error)
	close() error
}

// pack writes an archive whose bytes follow from the names, the contents and
// the executable bits below dir, and from when, alone: not from who made it, in
// which order the files came or what the umask was.
func pack(out, dir string, when time.Time) (err error) {
	entries, err := walk(dir)
	if err != nil {
		return err
	}
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(out)
		}
	}()
	var w archiver
	switch {
	case strings.HasSuffix(out, ".tar.gz"):
		w, err = newTar(file)
	case strings.HasSuffix(out, ".zip"):
		w = newZip(file)
	default:
		err = fmt.Errorf("%s is neither .tar.gz nor .zip", out)
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := add(w, e, when); err != nil {
			return fmt.Errorf("pack %s: %w", e.from, err)
		}
	}
	return w.close()
}

// walk lists a folder in lexical order, under the folder's own name.
func walk(dir string) ([]entry, error) {
	var entries []entry
	parent := filepath.Dir(filepath.Clean(dir))
	err := filepath.WalkDir(dir, func(from string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(parent, from)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{name: filepath.ToSlash(rel), from: from, mode: 0o644, size: info.Size()}
		switch {
		case d.IsDir():
			e.name, e.mode, e.size = e.name+"/", fs.ModeDir|0o755, 0
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder", from)
		case info.Mode()&0o100 != 0:
			e.mode = 0o755
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

func add(w archiver, e entry, when time.Time) error {
	to, err := w.add(e, when)
	if err != nil || e.mode.IsDir() {
		return err
	}
	file, err := os.Open(e.from)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, file)
	return errors.Join(err, file.Close())
}

// tarArchive is a .tar.gz.
type tarArchive struct {
	tar  *tar.Writer
	gzip *gzip.Writer
}

func newTar(w io.Writer) (*tarArchive, error) {
	// The header has neither a name nor a time then.
	compressed, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	return &tarArchive{tar: tar.NewWriter(compressed), gzip: compressed}, nil
}

func (a *tarArchive) add(e entry, when time.Time) (io.Writer, error) {
	h := &tar.Header{
		Name: e.name, Mode: int64(e.mode.Perm()), Size: e.size, ModTime: when,
		Typeflag: tar.TypeReg, Format: tar.FormatUSTAR, Uname: "root", Gname: "root",
	}
	if e.mode.IsDir() {
		h.Typeflag = tar.TypeDir
	}
	return a.tar, a.tar.WriteHeader(h)
}

func (a *tarArchive) close() error { return errors.Join(a.tar.Close(), a.gzip.Close()) }

// zipArchive is a .zip.
type zipArchive struct{ *zip.Writer }

func newZip(w io.Writer) zipArchive {
	a := zip.NewWriter(w)
	a.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.BestCompression)
	})
	return zipArchive{a}
}

func (a zipArchive) add(e entry, when time.Time) (io.Writer, error) {
	h := &zip.FileHeader{Name: path.Clean(e.name), Method: zip.Deflate, Modified: when}
	if e.mode.IsDir() {
		h.Name, h.Method = e.name, zip.Store
	}
	h.SetMode(e.mode)
	return a.CreateHeader(h)
}

func (a zipArchive) close() error { return a.Close() }
