// Package archive keeps what Nomad forgets: of each build a record, and its two
// logs, in files of one folder each. It does not ask Nomad, and decides nothing.
package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"example.com/converge/dispatch/internal/build"
)

// Limits of an archive.
const (
	// MaxLog is how much of one log is kept, in bytes.
	MaxLog = 64 << 20
	// maxRecord is how large a record's file may be, in bytes.
	maxRecord = 1 << 20
	file      = "record.json"
	temporary = "record.new"
)

// Record is what is kept of a build.
type Record struct {
	build.Build
	// Before is the commit that the branch was at before the push, or "".
	Before string `json:",omitempty"`
	// Asked is when the webhook came, zero where that is not known.
	Asked time.Time `json:",omitzero"`
	// Nonce is what the debug token was made of, or "".
	Nonce string `json:",omitempty"`
	// Told is the status that was given to the outbox last.
	Told string `json:",omitempty"`
	// Reported is the last state of a build.Report, or "".
	Reported string `json:",omitempty"`
	// Over says that the task has ended.
	Over bool `json:",omitempty"`
	// Gone says that Nomad had deleted the logs before they were archived.
	Gone bool `json:",omitempty"`
	// Became is the build that one which waited has become.
	Became string `json:",omitempty"`
}

// Archive is a folder. Its methods may be called concurrently, for one build one
// at a time.
type Archive struct {
	dir string
	log *slog.Logger
	mu  sync.Mutex // a folder is made, or deleted
}

// Open makes the folder where it is missing.
func Open(dir string, log *slog.Logger) (*Archive, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the archive: %w", err)
	}
	return &Archive{dir: dir, log: log}, nil
}

// At is an archive that another program keeps, to be read.
func At(dir string, log *slog.Logger) *Archive { return &Archive{dir: dir, log: log} }

// folder is where a build is: its id may have slashes.
func (a *Archive) folder(id string) string { return filepath.Join(a.dir, url.QueryEscape(id)) }

// Log is the file of a build's log.
func (a *Archive) Log(id string, log build.Stream) string {
	return filepath.Join(a.folder(id), string(log))
}

// Append opens a log to be written to its end.
func (a *Archive) Append(id string, log build.Stream) (*os.File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := os.MkdirAll(a.folder(id), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(a.Log(id, log), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// Put writes a record, whole or not at all.
func (a *Archive) Put(r Record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keep the record of %s: %w", r.ID, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	folder := a.folder(r.ID)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("keep the record of %s: %w", r.ID, err)
	}
	if err := os.WriteFile(filepath.Join(folder, temporary), text, 0o600); err != nil {
		return fmt.Errorf("keep the record of %s: %w", r.ID, err)
	}
	if err := os.Rename(filepath.Join(folder, temporary), filepath.Join(folder, file)); err != nil {
		return fmt.Errorf("keep the record of %s: %w", r.ID, err)
	}
	return nil
}

// Get reads a record; the error is of fs.ErrNotExist where there is none.
func (a *Archive) Get(id string) (Record, error) { return read(filepath.Join(a.folder(id), file)) }

func read(path string) (Record, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Record{}, err
	}
	if info.Size() > maxRecord {
		return Record{}, errors.New("the record is too large")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Record{}, err
	}
	var r Record
	err = json.Unmarshal(text, &r)
	return r, err
}

// All reads every record. What cannot be read is named in the log and left out.
func (a *Archive) All() ([]Record, error) {
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	var all []Record
	for _, e := range entries {
		path := filepath.Join(a.dir, e.Name(), file)
		r, err := read(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil || a.folder(r.ID) != filepath.Join(a.dir, e.Name()):
			a.log.Warn("a record of the archive cannot be used", "file", path)
		default:
			all = append(all, r)
		}
	}
	return all, nil
}

// Delete forgets a build.
func (a *Archive) Delete(id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return os.RemoveAll(a.folder(id))
}

// DropLogs deletes a build's logs, and leaves its record.
func (a *Archive) DropLogs(id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, log := range []build.Stream{build.Stdout, build.Stderr} {
		if err := os.Remove(a.Log(id, log)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// size is how many bytes a build has here.
func (a *Archive) size(id string) int64 {
	var sum int64
	for _, name := range []string{file, string(build.Stdout), string(build.Stderr)} {
		if info, err := os.Stat(filepath.Join(a.folder(id), name)); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// Expired returns, of builds that have ended, those that are older than keep, and
// of the others the oldest until the rest is not larger than most bytes and not
// more than count.
func (a *Archive) Expired(all []build.Build, now time.Time, keep time.Duration, most int64, count int) []string {
	all = slices.Clone(all)
	slices.SortFunc(all, func(x, y build.Build) int { return y.Created.Compare(x.Created) })
	var out []string
	var sum int64
	for i, b := range all {
		sum += a.size(b.ID)
		if now.Sub(b.Created) > keep || sum > most || i >= count {
			out = append(out, b.ID)
		}
	}
	return out
}
