package asciicast

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxSameName is how many recordings may have one name, but for a number.
const maxSameName = 1000

// Name returns the name of a recording: the time in UTC, the user, and a
// number that is the caller's. What does not belong in a file's name is
// replaced.
func Name(start time.Time, user string, number int) string {
	user = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("._-", r):
			return r
		}
		return '_'
	}, user)
	return fmt.Sprintf("%s-%s-%d.cast", start.UTC().Format("20060102T150405Z"), user, number)
}

// Create starts a recording to a new file in dir, which only this account may
// read. A file that is there already is left alone: the name gets a number.
func Create(dir, name string, h Header, o Options) (*Recorder, error) {
	stem := strings.TrimSuffix(name, ".cast")
	for n := 1; ; n++ {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		switch {
		case err == nil:
			return New(f, h, o), nil
		case errors.Is(err, os.ErrExist) && n < maxSameName:
			name = fmt.Sprintf("%s-%d.cast", stem, n+1)
		default:
			return nil, fmt.Errorf("making a recording: %w", err)
		}
	}
}

// Prepare makes the folder, for this account alone, if it is not there, and
// tries that files can be made in it.
func Prepare(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, ".converge-*"); err == nil {
			f.Close()
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return fmt.Errorf("cannot record to the folder %s: %w: name one that can be written to", dir, err)
	}
	return nil
}
