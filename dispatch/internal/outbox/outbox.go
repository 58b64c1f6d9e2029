// Package outbox keeps what must be done until it was done: in files, so that a
// restart or a kill loses nothing, and with tries further and further apart. It
// does not know what it keeps.
package outbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	// firstWait and mostWait are between two tries.
	firstWait = time.Second
	mostWait  = 5 * time.Minute
	// maxFile is how large a file may be that is read at the start, in bytes.
	maxFile = 64 << 20
	ending  = ".json"
)

// ErrFull says that there is no place for another item.
var ErrFull = errors.New("the outbox is full")

// Result is what became of a try.
type Result struct {
	// Done says that the item need not be kept any more, for good or bad.
	Done bool
	// After is how long to wait at least, where it is not done.
	After time.Duration
}

// Options of a Box.
type Options struct {
	// Dir is made where it is missing. One Box uses it at a time.
	Dir string
	// Most is how many items are kept, Workers how many are tried at a time, and
	// Keep how long one is tried.
	Most, Workers int
	Keep          time.Duration
	// MostBytes is how large all items may be together, 0 for any size: they are
	// in memory, too.
	MostBytes int64
	// Sync waits for the disk itself, for what nobody could find again after the
	// machine has failed.
	Sync bool
	// Do tries an item. It may be called concurrently, for one key never.
	Do  func(ctx context.Context, key string, body []byte) Result
	Log *slog.Logger
}

// item is one thing to do. The exported fields are in its file.
type item struct {
	Key   string          `json:"key"`
	Body  json.RawMessage `json:"body"`
	Added time.Time       `json:"added"`

	next    time.Time
	wait    time.Duration
	version int // of Body
	running bool
}

// Box is an outbox. Its methods may be called concurrently.
type Box struct {
	o    Options
	mu   sync.Mutex
	all  map[string]*item
	size int64 // of all bodies
	wake chan struct{}
}

// Open reads what a former run has left. A file that cannot be used is named in
// the log and left alone.
func Open(o Options) (*Box, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the outbox: %w", err)
	}
	b := &Box{o: o, all: map[string]*item{}, wake: make(chan struct{}, 1)}
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(o.Dir, e.Name())
		if !strings.HasSuffix(e.Name(), ending) {
			_ = os.Remove(path) // a file that was not finished
			continue
		}
		i, err := read(path)
		if err != nil || b.path(i.Key) != path {
			o.Log.Warn("a file of the outbox cannot be used: look at it and delete it", "file", path)
			continue
		}
		b.all[i.Key] = i
		b.size += int64(len(i.Body))
	}
	return b, nil
}

func read(path string) (*item, error) {
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxFile {
		return nil, errors.New("it is too large")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	i := &item{}
	return i, json.Unmarshal(text, i)
}

func (b *Box) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(b.o.Dir, hex.EncodeToString(sum[:16])+ending)
}

// Add keeps a JSON value under a key, in place of an older one that was not done.
// It is in its file when Add returns. The error is ErrFull, or of the disk.
func (b *Box) Add(key string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("keep it in the outbox: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.all[key]
	if i == nil {
		if len(b.all) >= b.o.Most {
			return ErrFull
		}
		i = &item{Key: key}
	}
	more := int64(len(body) - len(i.Body))
	if b.o.MostBytes > 0 && more > 0 && b.size+more > b.o.MostBytes {
		return ErrFull
	}
	changed := *i
	changed.Body, changed.Added = body, time.Now().UTC()
	if err := b.write(&changed); err != nil {
		return fmt.Errorf("keep it in the outbox: %w", err)
	}
	i.Body, i.Added, i.next, i.wait = changed.Body, changed.Added, time.Time{}, 0
	i.version++
	b.all[key] = i
	b.size += more
	b.poke()
	return nil
}

// write makes the file whole or not at all. The lock is held.
func (b *Box) write(i *item) error {
	text, err := json.Marshal(i)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(b.o.Dir, "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil && b.o.Sync {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), b.path(i.Key))
	}
	if err == nil && b.o.Sync {
		err = syncFolder(b.o.Dir)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// syncFolder waits until a folder's names are on the disk. Windows writes them
// through by itself, and lets nobody wait for a folder.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// Len is how many items are kept.
func (b *Box) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all)
}

// Retry makes all that waits due at once, as when somebody is there again.
func (b *Box) Retry() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range b.all {
		i.next, i.wait = time.Time{}, 0 // the latter for what is being tried in vain
	}
	b.poke()
}

func (b *Box) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run tries what is due until ctx ends, and returns when the last try has.
func (b *Box) Run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	places := make(chan struct{}, b.o.Workers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		case <-timer.C:
		}
		due, soonest := b.due(cap(places) - len(places))
		for _, i := range due {
			places <- struct{}{}
			workers.Go(func() {
				defer b.poke()
				defer func() { <-places }()
				b.try(ctx, i)
			})
		}
		timer.Reset(soonest)
	}
}

// due takes at most so many items that are, and says when the next one is.
func (b *Box) due(most int) ([]*item, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, soonest := time.Now(), time.Hour
	var due []*item
	for _, i := range b.all {
		switch {
		case i.running:
		case i.next.After(now):
			soonest = min(soonest, i.next.Sub(now))
		case len(due) < most:
			i.running = true
			due = append(due, i)
		}
	}
	return due, soonest
}

func (b *Box) try(ctx context.Context, i *item) {
	b.mu.Lock()
	body, version, added := i.Body, i.version, i.Added
	b.mu.Unlock()
	result := b.o.Do(ctx, i.Key, body)
	b.mu.Lock()
	defer b.mu.Unlock()
	i.running = false
	switch {
	case i.version != version: // another value has come meanwhile
	case !result.Done && ctx.Err() != nil:
	case !result.Done && time.Since(added) > b.o.Keep:
		b.o.Log.Error("given up: it could not be done in time", "what", i.Key, "since", added)
		b.drop(i)
	case result.Done:
		b.drop(i)
	default:
		i.wait = min(mostWait, max(firstWait, i.wait*2))
		i.next = time.Now().Add(max(result.After, i.wait/2+rand.N(i.wait)))
	}
}

// drop forgets an item. The lock is held.
func (b *Box) drop(i *item) {
	delete(b.all, i.Key)
	b.size -= int64(len(i.Body))
	if err := os.Remove(b.path(i.Key)); err != nil && !errors.Is(err, os.ErrNotExist) {
		b.o.Log.Error("a file of the outbox cannot be deleted: what it asks for will be done again", "err", err)
	}
}
