package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode"

	"example.com/converge/dispatch/internal/archive"
	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/spool"
)

// Open implements build.Logs.
func (e *Engine) Open(ctx context.Context, id string, log build.Stream, offset int64, follow bool) (build.Log, error) {
	if e.kept != nil { // first: Nomad may have forgotten the log, and know the build
		if old, err := e.kept.Get(id); err == nil && old.Archived && !old.Gone {
			return openFile(e.kept.Log(id, log), offset)
		}
	}
	r, err := e.record(ctx, id)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Gone:
		return nil, build.ErrGone
	case r.Archived || r.State == build.Waiting:
		return openFile(e.archive.Log(r.ID, log), offset)
	}
	e.mu.Lock()
	x := e.builds[r.ID]
	if x == nil {
		e.mu.Unlock()
		return nil, build.ErrUnknown
	}
	s := e.spool(x, log)
	e.mu.Unlock()
	out, err := s.Reader(ctx, offset, follow)
	switch {
	case spool.IsGone(err):
		return nil, build.ErrGone
	case err != nil:
		return nil, fmt.Errorf("%w: %w", build.ErrAway, err)
	}
	return out, nil
}

// archived is a log that grows no more.
type archived struct {
	io.Reader
	io.Closer
	offset int64
}

func (a archived) Offset() int64 { return a.offset }

func openFile(path string, offset int64) (build.Log, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) { // nothing was ever written
		return archived{bytes.NewReader(nil), io.NopCloser(nil), 0}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the archived log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open the archived log: %w", err)
	}
	if offset < 0 {
		offset = max(0, info.Size()+offset)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open the archived log: %w", err)
	}
	return archived{f, f, offset}, nil
}

// spool returns the copy of a build's log. The lock is held.
func (e *Engine) spool(x *entry, log build.Stream) *spool.Spool {
	if s := x.spools[log]; s != nil {
		return s
	}
	if x.spools == nil {
		x.spools = map[build.Stream]*spool.Spool{}
	}
	id := x.rec.ID
	s := spool.New(spool.Options{
		Source: &source{e, x, log}, Path: e.archive.Log(id, log), Most: archive.MaxLog,
		Note:   fmt.Sprintf("\n[the log is longer than %d MiB: the rest is not kept]\n", archive.MaxLog>>20),
		Append: func() (*os.File, error) { return e.archive.Append(id, log) },
	})
	x.spools[log] = s
	return s
}

// source is a build's log at Nomad.
type source struct {
	e   *Engine
	x   *entry
	log build.Stream
}

func (s *source) Ready() (there, over bool, changed <-chan struct{}) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	r := s.x.rec
	return r.Allocation != "" && (r.State != build.Queued || r.Over), r.Over, s.x.changed
}

func (s *source) Open(ctx context.Context, offset int64, follow bool) (io.ReadCloser, error) {
	s.e.mu.Lock()
	allocation := s.x.rec.Allocation
	s.e.mu.Unlock()
	if allocation == "" {
		return nil, nomad.ErrNotStarted
	}
	return s.e.o.Nomad.Log(ctx, allocation, s.log, offset, follow)
}

func (s *source) Gone(err error) bool    { return errors.Is(err, nomad.ErrNoLog) }
func (s *source) Missing(err error) bool { return errors.Is(err, nomad.ErrNotStarted) }

// finish archives the logs of a build that has ended, now or as soon as Nomad can
// be reached. The lock is held.
func (e *Engine) finish(x *entry) {
	if x.finishing || x.rec.Archived || x.rec.Became != "" || e.o.Detached {
		return
	}
	x.finishing = true
	id := x.rec.ID
	out, errs := e.spool(x, build.Stdout), e.spool(x, build.Stderr)
	e.start(func(ctx context.Context) {
		gone, err := e.copyLogs(ctx, out, errs)
		if ctx.Err() != nil {
			return // the program ends: the next run goes on
		}
		if err != nil {
			out.Close()
			errs.Close()
			gone = out.Size() == 0 && errs.Size() == 0
			e.log.Warn("the logs of a build could not be read in time: what was read is kept", "build", id, "err", err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		r := &x.rec
		r.Archived, r.Gone = true, gone
		if reason := e.lastWord(r.ID); reason != "" && r.State == build.Failure && strings.HasPrefix(r.Reason, "exit ") {
			r.Reason = reason
		}
		e.update(x)
		x.spools = nil
		e.wrote(out.Size() + errs.Size())
		// Those who read go on with the spools that they have, which are done.
		e.log.Info("build ended", "build", r.ID, "repo", r.Repo, "commit", r.Commit, "state", r.State, "reason", r.Reason, "took", r.Ended.Sub(r.Created).Round(time.Millisecond))
	})
}

// copyLogs copies both logs to their ends. A machine that is down has them, and may
// never come back: it is asked for as long as ArchiveWait, which does not run while
// Nomad itself is away. Between tries, one of the few places is another build's.
func (e *Engine) copyLogs(ctx context.Context, out, errs *spool.Spool) (gone bool, err error) {
	pause, left := firstWait, e.o.ArchiveWait
	for {
		select {
		case e.sem <- struct{}{}:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		began, watched := time.Now(), e.Ready() == nil
		trying, cancel := context.WithTimeout(ctx, tryFor)
		goneOut, errOut := out.Finish(trying)
		goneErr, errErr := errs.Finish(trying)
		cancel()
		<-e.sem
		if err = errors.Join(errOut, errErr); err == nil {
			return goneOut && goneErr, nil
		}
		if !rest(ctx, pause) {
			return false, ctx.Err()
		}
		if watched && e.Ready() == nil {
			left -= time.Since(began)
		}
		if left <= 0 {
			return false, err
		}
		pause = min(mostWait, pause*2)
	}
}

// lastWord is what the builder itself, not the build, said last: a line of stderr
// that begins with its name.
func (e *Engine) lastWord(id string) string {
	const most, longest = 4 << 10, 120
	log, err := openFile(e.archive.Log(id, build.Stderr), -most)
	if err != nil {
		return ""
	}
	defer log.Close()
	text, err := io.ReadAll(io.LimitReader(log, most))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(text), "\r\n"), "\n")
	word, ok := strings.CutPrefix(strings.TrimSpace(lines[len(lines)-1]), "builder: ")
	if !ok || word == "" || len(word) > longest || strings.ContainsFunc(word, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ""
	}
	return word
}
