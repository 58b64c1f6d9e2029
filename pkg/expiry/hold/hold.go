// Package hold observes the .hold file of an agent's folder and tells an expiry
// loop about it, and writes that file for the loop. It knows the file system and
// the two events about .hold; it must not know what they do to the session.
//
// The whole truth is the file's date, looked at every Interval. Notifications
// (fsnotify, on the folder, since the file comes and goes) only make it faster,
// so nothing is missed where there are none: on network file systems, or where
// the number of watchers is used up.
package hold

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"example.com/converge/pkg/expiry"
	"github.com/fsnotify/fsnotify"
)

const (
	// FileName is the file's name in the agent's folder.
	FileName = ".hold"

	// DefaultInterval is the time between two looks at the file.
	DefaultInterval = 2 * time.Second

	// newName is where Write prepares the file, so that it appears with its date.
	newName = ".hold.new"
)

// Options tune a Watcher. The zero value is useful.
type Options struct {
	// Interval is the time between two looks at the file; 0 or less means
	// DefaultInterval.
	Interval time.Duration
	// Logger gets a line about a file that is ignored, and about what hinders
	// the observation; nil discards them.
	Logger *slog.Logger
}

// Watcher observes one folder's .hold for one session.
type Watcher struct {
	dir, path string
	interval  time.Duration
	log       *slog.Logger
	// notifier makes the notifications; tests replace it.
	notifier func() (*fsnotify.Watcher, error)

	ignoring bool      // the file is as it was before the session
	ignored  time.Time // its date
	known    bool      // the file was reported
	date     time.Time // with this date
	failing  bool      // the last look failed, and the log says so
}

// New notes how things stand in dir, which must exist: a .hold that is there
// already is ignored, with a log line, until it is touched again or replaced. It
// holds no resources; Run does the work.
func New(dir string, o Options) (*Watcher, error) {
	w := &Watcher{
		dir:      dir,
		path:     filepath.Join(dir, FileName),
		interval: o.Interval,
		log:      o.Logger,
		notifier: fsnotify.NewWatcher,
	}
	if w.interval <= 0 {
		w.interval = DefaultInterval
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	switch info, err := os.Stat(dir); {
	case err != nil:
		return nil, fmt.Errorf("watch the agent's folder: %w: give a folder that exists", err)
	case !info.IsDir():
		return nil, fmt.Errorf("watch the agent's folder: %s is not a folder: give a folder", dir)
	}
	info, err := os.Stat(w.path)
	switch {
	case err == nil:
		w.ignoring, w.ignored = true, info.ModTime()
		w.log.Warn("ignoring a .hold from before this session until it is touched again", "file", w.path)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("look at %s: %w: make it readable or remove it", FileName, err)
	}
	return w, nil
}

// Run observes the file until ctx is done, and calls send (the Send of an
// expiry.Loop) with HoldTouched at each new date and with HoldRemoved when the
// file has gone. All calls come from Run's goroutine. Call it once.
func (w *Watcher) Run(ctx context.Context, send func(expiry.Event)) {
	var events <-chan fsnotify.Event
	var failures <-chan error
	if notify, err := w.watch(); err != nil {
		w.log.Warn("no notifications for the agent's folder; looking at .hold now and then instead",
			"interval", w.interval, "err", err)
	} else {
		defer notify.Close()
		events, failures = notify.Events, notify.Errors
	}

	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	// What changed between New and the notifications is seen here.
	w.look(send, false)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.look(send, false)
		case event, ok := <-events:
			if !ok {
				events = nil // the next look comes by the ticker
			} else if filepath.Base(event.Name) == FileName {
				w.look(send, event.Has(fsnotify.Create))
			}
		case _, ok := <-failures:
			if !ok {
				failures = nil
				continue
			}
			w.look(send, false) // an overflow: something was lost
		}
	}
}

// watch asks for notifications about the folder.
func (w *Watcher) watch() (*fsnotify.Watcher, error) {
	notify, err := w.notifier()
	if err != nil {
		return nil, err
	}
	if err := notify.Add(w.dir); err != nil {
		return nil, errors.Join(err, notify.Close())
	}
	return notify, nil
}

// look compares the file with what was reported of it and reports the change.
// created tells that the file was made: if it does not exist by now it came and
// went unseen, as one that Write made may, so it is reported gone all the same.
func (w *Watcher) look(send func(expiry.Event), created bool) {
	info, err := os.Stat(w.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		w.failing, w.ignoring = false, false
		if w.known || created {
			w.known = false
			send(expiry.HoldRemoved())
		}
	case err != nil:
		// Unreadable is not removed: what was last seen stays true.
		if !w.failing {
			w.failing = true
			w.log.Warn("cannot look at .hold; its last known date stays in force", "file", w.path, "err", err)
		}
	default:
		w.failing = false
		date := info.ModTime()
		if w.ignoring && date.Equal(w.ignored) || w.known && date.Equal(w.date) {
			return
		}
		w.ignoring, w.known, w.date = false, true, date
		// The date has no monotonic reading, so this is a distance by the wall
		// clock, which dated the file.
		send(expiry.HoldTouched(time.Until(date)))
	}
}

// Write makes dir's .hold, or replaces it, dated ahead of now; it is what the
// expiry.WriteHold effect asks for. The file appears with its date, never with
// another before, and a .hold that leads out of dir is replaced, not followed.
func Write(dir string, ahead time.Duration) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("write %s: %w: the folder is there only while the agent runs", FileName, err)
	}
	defer root.Close()
	if err := write(root, time.Now().Add(ahead)); err != nil {
		return fmt.Errorf("write %s in %s: %w: make the folder writable", FileName, dir, err)
	}
	return nil
}

func write(root *os.Root, date time.Time) error {
	if err := root.Remove(newName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(newName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := root.Chtimes(newName, date, date); err != nil {
		return err
	}
	return root.Rename(newName, FileName)
}
