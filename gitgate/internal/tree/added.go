package tree

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // as git names its objects
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"example.com/converge/gitgate/internal/gitcmd"
)

// addedFile is one that a commit has and another one has not, as git tells it.
type addedFile struct{ mode, id, name string }

// The modes that matter.
const (
	modeTree      = "040000"
	modeLink      = "120000"
	modeSubmodule = "160000"
)

// removeAdded removes the files that one commit has and the old one has not, as
// far as a reset that was cut off has written them. It may have been cut off
// before it came to a name, or long ago, and then what has that name is somebody's
// untracked file. So only that goes which is what git writes, or, for git writes a
// file from its beginning at its place, the beginning of that. Of a file of
// somebody's that looks the same nothing is lost that the commit has not.
func removeAdded(ctx context.Context, git *gitcmd.Git, old, hash string) error {
	root, err := os.OpenRoot(git.Dir) // a link in the tree leads nowhere else
	if err != nil {
		return err
	}
	defer root.Close()
	var failed error
	remove := func(name string) {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = err
			return
		}
		// And the folders that it alone needed.
		for dir := filepath.Dir(name); dir != "." && root.Remove(dir) == nil; dir = filepath.Dir(dir) {
		}
	}
	var last, attributes []addedFile
	var file addedFile
	list := &fields{each: func(field string) {
		if file.id == "" { // :000000 100644 0000000 1234567 A
			if words := strings.Fields(field); len(words) == 5 {
				file = addedFile{mode: words[1], id: words[3]}
			}
			return
		}
		file.name = filepath.FromSlash(field)
		switch info, err := root.Lstat(file.name); {
		case err != nil: // it is not there
		case file.mode == modeSubmodule && info.IsDir():
			remove(file.name) // if it is empty
		case filepath.Base(file.name) == ".gitattributes":
			attributes = append(attributes, file)
		case isBlob(root, info, file):
			remove(file.name)
		case info.Mode().IsRegular() && file.mode != modeLink:
			last = append(last, file)
		}
		file = addedFile{}
	}}
	err = git.Stream(ctx, list, "diff-tree", "-r", "-z", "--no-renames", "--diff-filter=A", old, hash)
	// What is half written, or was converted, as the attributes say.
	for _, f := range append(last, attributes...) {
		if begins(ctx, git, root, f) {
			remove(f.name)
		}
	}
	return cmp.Or(err, failed)
}

// isBlob reports whether a file or link holds what the object holds.
func isBlob(root *os.Root, info fs.FileInfo, f addedFile) bool {
	var content io.Reader
	size := info.Size()
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := root.Readlink(f.name)
		if err != nil {
			return false
		}
		content, size = strings.NewReader(to), int64(len(to))
	case info.Mode().IsRegular():
		file, err := root.Open(f.name)
		if err != nil {
			return false
		}
		defer file.Close()
		content = file
	default:
		return false
	}
	var sum hash.Hash
	if sum = sha1.New(); len(f.id) == hex.EncodedLen(sha256.Size) { //nolint:gosec // as above
		sum = sha256.New()
	}
	fmt.Fprintf(sum, "blob %d\x00", size)
	_, err := io.Copy(sum, content)
	return err == nil && hex.EncodeToString(sum.Sum(nil)) == f.id
}

// begins reports whether a file is what a checkout writes, or its beginning.
func begins(ctx context.Context, git *gitcmd.Git, root *os.Root, f addedFile) bool {
	file, err := root.Open(f.name)
	if err != nil {
		return false
	}
	defer file.Close()
	c := &comparer{file: file}
	err = git.Stream(ctx, c, "cat-file", "--filters", "--path="+filepath.ToSlash(f.name), f.id)
	more, _ := io.CopyN(io.Discard, file, 1)
	return err == nil && !c.differs && more == 0
}

// comparer compares what is written to it with a file, as long as that goes.
type comparer struct {
	file    io.Reader
	differs bool
}

func (c *comparer) Write(p []byte) (int, error) {
	there := make([]byte, len(p))
	n, _ := io.ReadFull(c.file, there)
	c.differs = c.differs || !bytes.Equal(there[:n], p[:n])
	return len(p), nil
}

// fields hands on each part of a text that ends with a zero byte.
type fields struct {
	each func(string)
	rest []byte
}

func (f *fields) Write(p []byte) (int, error) {
	f.rest = append(f.rest, p...)
	for {
		field, rest, ok := bytes.Cut(f.rest, []byte{0})
		if !ok {
			return len(p), nil
		}
		f.each(string(field))
		f.rest = rest
	}
}
