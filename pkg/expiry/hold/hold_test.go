package hold

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/expiry"
	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rarely is an interval that no test outlasts: what is seen is seen through
// notifications.
const rarely = 24 * time.Hour

// folder is a watched folder and what its watcher reports.
type folder struct {
	t      *testing.T
	dir    string
	events chan expiry.Event // so large that the watcher never waits for the test
	log    bytes.Buffer      // to be read after stop
	stop   func()
}

// watched runs a watcher; prepare may put things in the folder before.
func watched(t *testing.T, interval time.Duration, notifier func() (*fsnotify.Watcher, error), prepare func(*folder)) *folder {
	t.Helper()
	f := &folder{t: t, dir: t.TempDir(), events: make(chan expiry.Event, 64)}
	if prepare != nil {
		prepare(f)
	}
	w, err := New(f.dir, Options{Interval: interval, Logger: slog.New(slog.NewTextHandler(&f.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if notifier != nil {
		w.notifier = notifier
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx, func(e expiry.Event) {
			select {
			case f.events <- e:
			case <-ctx.Done():
			}
		})
	}()
	f.stop = func() { cancel(); <-done }
	t.Cleanup(f.stop)
	return f
}

func (f *folder) path() string { return filepath.Join(f.dir, FileName) }

// touch dates .hold, creating it if need be, ahead of now.
func (f *folder) touch(ahead time.Duration) {
	f.t.Helper()
	file, err := os.OpenFile(f.path(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		f.t.Fatal(err)
	}
	date := time.Now().Add(ahead)
	if err := os.Chtimes(f.path(), date, date); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) remove() {
	f.t.Helper()
	if err := os.Remove(f.path()); err != nil {
		f.t.Fatal(err)
	}
}

// next waits for one report.
func (f *folder) next() expiry.Event {
	f.t.Helper()
	select {
	case e := <-f.events:
		return e
	case <-time.After(time.Minute):
		f.t.Fatal("no report within a minute")
		panic("unreachable")
	}
}

// held waits until reports put the deadline of a session with an hour's expiry
// at an hour and ahead. Creating and dating are two steps of which the first may
// be seen alone. The tolerance is generous: loaded machines are slow.
func (f *folder) held(ahead time.Duration) {
	f.t.Helper()
	for {
		now := time.Now()
		e := f.next()
		s, _, _ := expiry.New(expiry.Config{Expiry: 1000 * time.Hour}, now)
		s, _, _ = expiry.Step(s, e, now)
		st := s.Status(now)
		if !st.Held {
			f.t.Fatalf("got %v, want a touch", e)
		}
		if off := st.Remaining - 1000*time.Hour - max(0, ahead); off > -5*time.Minute && off < 5*time.Minute {
			return
		}
	}
}

func (f *folder) removed() {
	f.t.Helper()
	for {
		if e := f.next(); e == expiry.HoldRemoved() {
			return
		}
	}
}

// story is what every way of watching must see.
func (f *folder) story() {
	f.t.Helper()
	f.touch(0)
	f.held(0)
	f.touch(2 * time.Hour) // a new date of an existing file
	f.held(2 * time.Hour)
	f.remove()
	f.removed()
	f.touch(-5 * time.Hour)
	f.held(-5 * time.Hour)
	if err := Write(f.dir, 3*time.Hour); err != nil { // replaces the file
		f.t.Fatal(err)
	}
	f.held(3 * time.Hour)
	f.remove()
	f.removed()
}

func TestNotifications(t *testing.T) { watched(t, rarely, nil, nil).story() }

func TestLooksNowAndThen(t *testing.T) {
	f := watched(t, 10*time.Millisecond, func() (*fsnotify.Watcher, error) {
		return nil, errors.New("no watchers left")
	}, nil)
	f.story()
	f.stop()
	if log := f.log.String(); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "no watchers left") {
		t.Errorf("log: %s", log)
	}
}

// A notifier that dies on the way leaves the looks at the interval.
func TestNotificationsStop(t *testing.T) {
	var notify *fsnotify.Watcher
	f := watched(t, 10*time.Millisecond, func() (*fsnotify.Watcher, error) {
		var err error
		notify, err = fsnotify.NewWatcher()
		return notify, err
	}, nil)
	f.touch(0)
	f.held(0) // Run has begun, so notify is set
	if err := notify.Close(); err != nil {
		t.Fatal(err)
	}
	f.touch(2 * time.Hour)
	f.held(2 * time.Hour)
}

// What happens between New and Run is seen at once.
func TestChangeBeforeRun(t *testing.T) {
	dir := t.TempDir()
	w, err := New(dir, Options{Interval: rarely})
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reports := 0
	w.Run(ctx, func(expiry.Event) {
		reports++
		cancel()
	})
	if reports != 1 {
		t.Errorf("%d reports within a minute, want 1", reports)
	}
}

// A lost notification is made up for.
func TestNotificationsOverflow(t *testing.T) {
	var notify *fsnotify.Watcher
	f := watched(t, rarely, func() (*fsnotify.Watcher, error) {
		var err error
		notify, err = fsnotify.NewWatcher()
		return notify, err
	}, nil)
	if err := Write(f.dir, 0); err != nil { // one notification, not several
		t.Fatal(err)
	}
	f.held(0)
	if err := notify.Remove(f.dir); err != nil {
		t.Fatal(err)
	}
	f.touch(2 * time.Hour) // unseen
	notify.Errors <- fsnotify.ErrEventOverflow
	f.held(2 * time.Hour)
}

func TestOldFileIsIgnoredUntilTouched(t *testing.T) {
	f := watched(t, rarely, nil, func(f *folder) { f.touch(5 * time.Hour) })
	// Changes to other files make no report, nor does the old one.
	if err := os.WriteFile(filepath.Join(f.dir, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.touch(time.Hour)
	f.held(time.Hour) // and not 5 hours: held takes no earlier report for it
	f.stop()
	if log := f.log.String(); strings.Count(log, "ignoring") != 1 || !strings.Contains(log, f.path()) {
		t.Errorf("log: %s", log)
	}
}

// No report at all comes from an old file, even if looked at often; one that is
// removed and put back with the very same date is a new one.
func TestOldFileReplaced(t *testing.T) {
	date := time.Now().Add(-time.Hour).Truncate(time.Second)
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	create := func() {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, date, date); err != nil {
			t.Fatal(err)
		}
	}
	create()
	w, err := New(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []expiry.Event
	look := func() { w.look(func(e expiry.Event) { got = append(got, e) }, false) }
	look()
	look()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	look()
	if len(got) != 0 {
		t.Fatalf("reports about an old file: %v", got)
	}
	create()
	look()
	look()
	if len(got) != 1 || !strings.HasPrefix(got[0].String(), "hold touched -1h0m") {
		t.Errorf("reports about its successor: %v", got)
	}
}

// A file that came and went between two looks is reported gone if its creation
// was noticed: Write may have made it.
func TestCameAndWent(t *testing.T) {
	w, err := New(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []expiry.Event
	for _, created := range []bool{false, true, false} {
		w.look(func(e expiry.Event) { got = append(got, e) }, created)
	}
	if len(got) != 1 || got[0] != expiry.HoldRemoved() {
		t.Errorf("reports: %v", got)
	}
}

// A file that cannot be looked at is not one that was removed.
func TestUnreadable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agentdir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	w, err := New(dir, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, 0); err != nil {
		t.Fatal(err)
	}
	var got []expiry.Event
	look := func() { w.look(func(e expiry.Event) { got = append(got, e) }, false) }
	look()
	good := w.path
	w.path = "\x00" // the one path that no system can look at
	look()
	look()
	w.path = good
	look()
	if len(got) != 1 || strings.Count(log.String(), "cannot look") != 1 {
		t.Errorf("reports %v, log %s", got, &log)
	}
}

func TestNewRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, file + "-missing"} {
		if w, err := New(dir, Options{}); err == nil {
			t.Errorf("New(%s) gave %v", dir, w)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	// What a run that was killed, or somebody with a symbolic link, left behind.
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(filepath.Join(dir, newName), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	linked := os.Symlink(outside, path) == nil // Windows may not allow it
	for _, ahead := range []time.Duration{-time.Hour, 0, 30 * 24 * time.Hour} {
		if err := Write(dir, ahead); err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if off := time.Until(info.ModTime()) - ahead; off < -5*time.Minute || off > 5*time.Minute {
			t.Errorf("%v ahead is dated %v", ahead, info.ModTime())
		}
		if !info.Mode().IsRegular() || info.Size() != 0 {
			t.Errorf("%v is no empty file", info.Mode())
		}
	}
	if _, err := os.Stat(outside); linked && err == nil {
		t.Error("Write followed a link out of the folder")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the folder: %v, %v", entries, err)
	}
	if err := Write(filepath.Join(dir, "missing"), 0); err == nil {
		t.Error("Write into a missing folder succeeded")
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, 0); err == nil {
		t.Error("Write over a folder succeeded")
	}
}
