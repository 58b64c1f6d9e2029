package ticket

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

const (
	// MinKey is the length of the shortest state key in bytes.
	MinKey = 32
	// maxFile bounds the file that holds it, in bytes.
	maxFile = 4 << 10
)

// LoadKey reads a state key from a file: one line of base64 that holds at least
// MinKey bytes; blank lines and those that begin with # do not count. It
// refuses a file that accounts other than the owner and the group may read, or
// that they or the group may write. The error is one sentence that names the
// file and says what to do, and never quotes what it holds.
func LoadKey(file string) ([]byte, error) {
	f, err := os.Open(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the state key file %s does not exist: make it with server --make-state-key %s: %w", file, file, fs.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("cannot read the state key file %s: give a file that this user may read: %w", file, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read the state key file %s: %w", file, err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("the state key file %s is a folder: give a file, or make one with server --make-state-key", file)
	}
	if exposed(info) {
		return nil, fmt.Errorf("the state key file %s is open to other accounts (mode %04o): close it with chmod 600 %s, "+
			"and if they may have read it, make another with server --make-state-key", file, info.Mode().Perm(), file)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the state key file %s: %w", file, err)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("the state key file %s holds no state key: %w: make another with server --make-state-key", file, err)
	}
	return key, nil
}

// parseKey finds the key in the text of a file.
func parseKey(text []byte) ([]byte, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("it has more than %d KiB", maxFile>>10)
	}
	line := ""
	for l := range bytes.Lines(text) {
		l = bytes.TrimSpace(l)
		if len(l) == 0 || l[0] == '#' {
			continue
		}
		if line != "" {
			return nil, errors.New("it has more than one line")
		}
		line = string(l)
	}
	if line == "" {
		return nil, errors.New("it is empty")
	}
	// Other tools make either alphabet, with or without padding.
	line = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(line), "=")
	key, err := base64.RawStdEncoding.DecodeString(line)
	if err != nil {
		return nil, errors.New("its line is not base64") // the cause would quote it
	}
	if len(key) < MinKey {
		return nil, fmt.Errorf("it has %d bytes, and needs %d", len(key), MinKey)
	}
	return key, nil
}

// MakeKey writes a new state key into a new file that only its owner can read.
// It never touches a file that exists. The error is one sentence.
func MakeKey(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot make the state key file %s: it exists, and is left as it is: use it, or give another name: %w", file, fs.ErrExist)
	}
	if err != nil {
		return fmt.Errorf("cannot make the state key file %s: give a name in a folder that this user may write to: %w", file, err)
	}
	key := make([]byte, MinKey)
	_, _ = rand.Read(key) // never fails: the process would end
	_, err = fmt.Fprintf(f, "# State key of Converge servers. Who reads it can take ids over: keep it secret.\n%s\n",
		base64.StdEncoding.EncodeToString(key))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cannot write the state key file %s: %w", file, errors.Join(err, os.Remove(file)))
	}
	return nil
}
