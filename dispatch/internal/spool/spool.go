// Package spool copies a log that grows somewhere else into a file, for as long
// as somebody reads it, and once to its end; any number of readers share one copy.
// It does not know where the log comes from.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"example.com/converge/dispatch/internal/build"
)

const (
	firstWait = 200 * time.Millisecond
	mostWait  = 10 * time.Second
)

// Source is the log where it grows.
type Source interface {
	// Open gives the log from an offset. With follow it may never end by itself.
	Open(ctx context.Context, offset int64, follow bool) (io.ReadCloser, error)
	// Ready waits until the log may be there, and reports whether it has grown to
	// its end; changed is closed when the answer may be another.
	Ready() (there, over bool, changed <-chan struct{})
	// Gone reports whether an error says that the log is no more.
	Gone(err error) bool
	// Missing reports whether an error says that there is no log yet.
	Missing(err error) bool
}

// Options of a Spool.
type Options struct {
	Source Source
	// Append opens the file to be written to its end, Path names it.
	Append func() (*os.File, error)
	Path   string
	// Most is how many bytes are copied; Note is written in place of the rest.
	Most int64
	Note string
}

// Spool is one copy. Its methods may be called concurrently. Close it.
type Spool struct {
	o      Options
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	run     int // counts Restart
	size    int64
	done    bool
	gone    bool  // the source had nothing to give any more
	failed  error // of the last try to copy to the end, for Finish
	readers int
	running bool
	stop    context.CancelFunc // of what runs
	changed chan struct{}
}

// New makes one; what is in the file already is not copied again.
func New(o Options) *Spool {
	s := &Spool{o: o, changed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if info, err := os.Stat(o.Path); err == nil {
		s.size = info.Size()
	}
	return s
}

// Close ends copying, and readers that wait.
func (s *Spool) Close() {
	s.mu.Lock()
	s.cancel() // under the lock: start looks at it there
	s.mu.Unlock()
	s.wg.Wait()
	s.mu.Lock()
	s.wake()
	s.mu.Unlock()
}

// Restart empties the copy: what the source gives from now on is another log. Who
// follows is told by build.ErrAnew, and then reads that one. It may be called where
// Source's methods block.
func (s *Spool) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run++
	s.size, s.done, s.gone = 0, false, false
	if s.stop != nil {
		s.stop() // what is copied by it is of the other log
	}
	s.wake()
	if err := os.Truncate(s.o.Path, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("empty the copy of a log: %w", err)
	}
	return nil
}

func (s *Spool) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Reader opens the log. A negative offset counts from the end of what is there;
// where nobody has followed so far that is asked for first. The error is of the
// source.
func (s *Spool) Reader(ctx context.Context, offset int64, follow bool) (*Reader, error) {
	var err error
	if !follow || offset < 0 {
		err = s.catchUp(ctx)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone && s.size == 0 {
		return nil, errGone
	}
	if offset < 0 {
		offset = max(0, s.size+offset)
	}
	r := &Reader{s: s, run: s.run, at: offset, start: offset, follow: follow}
	r.ctx, r.cancel = context.WithCancel(ctx)
	if follow && !s.done {
		s.readers++
		r.counted = true
		s.start()
	}
	return r, nil
}

var errGone = errors.New("the log is gone")

// IsGone reports whether an error of Reader is of a log that is no more.
func IsGone(err error) bool { return errors.Is(err, errGone) }

// start makes sure that somebody copies. The lock is held.
func (s *Spool) start() {
	if s.running || s.done || s.ctx.Err() != nil {
		return
	}
	s.running = true
	ctx, stop := context.WithCancel(s.ctx)
	s.stop = stop
	s.wg.Go(func() { s.copyAll(ctx, stop) })
}

// Finish tries to copy to the log's end, which must have come: Source.Ready says over.
// After an error, the source's or ctx's, it may be called again, and goes on.
func (s *Spool) Finish(ctx context.Context) (gone bool, err error) {
	s.mu.Lock()
	s.readers++
	s.failed = nil
	s.start()
	s.mu.Unlock()
	defer s.leave()
	for {
		s.mu.Lock()
		done, gone, failed, changed := s.done, s.gone, s.failed, s.changed
		s.mu.Unlock()
		switch {
		case done:
			return gone && s.Size() == 0, nil
		case failed != nil:
			return false, failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false, ctx.Err()
		case <-s.ctx.Done():
			return false, s.ctx.Err()
		}
	}
}

// Size is how much was copied.
func (s *Spool) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// leave takes a reader away; without any, nobody copies.
func (s *Spool) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers--; s.readers == 0 && s.stop != nil {
		s.stop()
	}
}

// catchUp copies what is there now, unless somebody is copying anyway.
func (s *Spool) catchUp(ctx context.Context) error {
	s.mu.Lock()
	if s.running || s.done {
		s.mu.Unlock()
		return nil
	}
	s.running = true // nobody else writes
	s.mu.Unlock()
	_, err := s.once(ctx, false)
	_, over, _ := s.o.Source.Ready() // without the lock: see Restart
	s.mu.Lock()
	s.running = false
	if s.readers > 0 { // somebody has come meanwhile
		s.start()
	}
	if over && s.o.Source.Gone(err) {
		s.done, s.gone, err = true, true, nil
		s.wake()
	}
	s.mu.Unlock()
	if s.o.Source.Missing(err) || s.o.Source.Gone(err) {
		return nil
	}
	return err
}

// copyAll follows the log until its end, or until nobody reads.
func (s *Spool) copyAll(ctx context.Context, stop context.CancelFunc) {
	defer stop()
	wait := firstWait
	for ctx.Err() == nil {
		there, over, changed := s.o.Source.Ready()
		if !there && !over {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		var n int64
		var err error
		if over {
			n, err = s.once(ctx, false)
			if err == nil || s.o.Source.Gone(err) || s.o.Source.Missing(err) {
				s.end(s.o.Source.Gone(err))
				break
			}
			if ctx.Err() == nil {
				s.fail(err)
			}
		} else {
			n, err = s.untilChanged(ctx, changed)
		}
		if n > 0 {
			wait = firstWait
		}
		if err == nil && n > 0 || ctx.Err() != nil {
			continue
		}
		// A broken connection, or a log that is not there yet: another look when
		// the build has changed, or after a while.
		_, _, again := s.o.Source.Ready()
		if s.o.Source.Missing(err) && again == changed {
			wait = mostWait
		}
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-again:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		wait = min(mostWait, wait*2)
	}
	s.mu.Lock()
	s.running, s.stop = false, nil
	if s.readers > 0 && !s.done { // one has come since the last one left
		s.start()
	}
	s.mu.Unlock()
}

// untilChanged follows until the source says that something has changed.
func (s *Spool) untilChanged(ctx context.Context, changed <-chan struct{}) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				var over bool
				if _, over, changed = s.o.Source.Ready(); over {
					cancel()
					return
				}
			}
		}
	})
	return s.once(ctx, true)
}

// once copies from where the copy ends.
func (s *Spool) once(ctx context.Context, follow bool) (int64, error) {
	s.mu.Lock()
	from, run := s.size, s.run
	s.mu.Unlock()
	if from >= s.o.Most {
		if !follow {
			return 0, nil
		}
		<-ctx.Done()
		return 0, nil
	}
	r, err := s.o.Source.Open(ctx, from, follow)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	f, err := s.o.Append()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := io.CopyBuffer(counter{s, f, run}, onlyReader{r}, make([]byte, 32<<10))
	if errors.Is(err, errFull) {
		err = nil
		if follow {
			<-ctx.Done()
		}
	}
	return n, err
}

type onlyReader struct{ io.Reader }

var (
	errFull  = errors.New("the log is longer than what is kept")
	errOther = errors.New("the log is another one by now")
)

// counter writes to the file and tells the readers.
type counter struct {
	s   *Spool
	f   *os.File
	run int
}

func (c counter) Write(p []byte) (int, error) {
	c.s.mu.Lock() // also while it writes: see Restart
	defer c.s.mu.Unlock()
	if c.run != c.s.run {
		return 0, errOther
	}
	most, size := c.s.o.Most, c.s.size
	text, full := p, false
	if size+int64(len(p)) > most {
		text, full = append(p[:most-size:most-size], c.s.o.Note...), true
	}
	n, err := c.f.Write(text)
	c.s.size += int64(n)
	c.s.wake()
	if err == nil && full {
		err = errFull
	}
	return min(n, len(p)), err
}

// end says that all is copied.
func (s *Spool) end(gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.gone = true, gone
	s.wake()
}

// fail says that a try to copy to the end has failed.
func (s *Spool) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
	s.wake()
}

// Reader reads the copy. It is for one goroutine; Close may be called by others.
type Reader struct {
	s         *Spool
	run       int
	ctx       context.Context
	cancel    context.CancelFunc
	file      *os.File
	at, start int64
	follow    bool
	counted   bool
	once      sync.Once
	mu        sync.Mutex
}

// Offset is where the first byte stands.
func (r *Reader) Offset() int64 { return r.start }

// Read waits for more while the log grows, where it follows. The error is
// build.ErrAnew, once, where the log has become another one, whose beginning is next.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		s := r.s
		s.mu.Lock()
		run, size, done, changed := s.run, s.size, s.done, s.changed
		s.mu.Unlock()
		if run != r.run {
			r.run, r.at, r.start = run, 0, 0
			return 0, build.ErrAnew
		}
		if r.at < size {
			n, err := r.read(p[:min(int64(len(p)), size-r.at)])
			if s.isRun(run) {
				return n, err
			}
			continue // it was read of another log
		}
		if done || !r.follow {
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
		case <-s.ctx.Done():
			return 0, io.EOF
		}
	}
}

func (s *Spool) isRun(run int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run == run
}

func (r *Reader) read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		f, err := os.Open(r.s.o.Path)
		if err != nil {
			return 0, err
		}
		r.file = f
	}
	n, err := r.file.ReadAt(p, r.at)
	r.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// Close ends a read that waits.
func (r *Reader) Close() error {
	r.once.Do(func() {
		r.cancel()
		if r.counted {
			r.s.leave()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.file != nil {
			_ = r.file.Close()
		}
	})
	return nil
}
