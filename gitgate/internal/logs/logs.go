// Package logs writes log lines where the configuration says, and takes its
// changes in while the program runs. It knows nothing of what is logged.
package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"example.com/converge/gitgate/internal/config"
)

// Logs is where the lines go. Its methods may be called concurrently.
type Logs struct {
	stdout io.Writer
	now    atomic.Pointer[slog.Handler]

	mu   sync.Mutex
	file *os.File // nil for stdout
}

// Open begins. The error says why a file cannot be written.
func Open(c config.Logging, stdout io.Writer) (*Logs, error) {
	l := &Logs{stdout: stdout}
	return l, l.Use(c)
}

// Use logs in another way, or opens the file again, as after a rotation. On an
// error everything stays.
func (l *Logs) Use(c config.Logging) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var file *os.File
	out := l.stdout
	if c.Output != "" && c.Output != "stdout" {
		var err error
		if file, err = os.OpenFile(c.Output, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640); err != nil {
			return fmt.Errorf("cannot log to the file of logging.output: %w", err)
		}
		out = file
	}
	options := &slog.HandlerOptions{Level: c.Level}
	if !c.Timestamp {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	var h slog.Handler = slog.NewTextHandler(out, options)
	if c.JSON {
		h = slog.NewJSONHandler(out, options)
	}
	l.now.Store(&h)
	if l.file != nil {
		_ = l.file.Close()
	}
	l.file = file
	return nil
}

// Logger returns a logger that follows.
func (l *Logs) Logger() *slog.Logger { return slog.New(handler{logs: l}) }

// Close ends it.
func (l *Logs) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
}

// handler is whatever holds at the moment, with what was added to a logger.
type handler struct {
	logs *Logs
	with []func(slog.Handler) slog.Handler
}

func (h handler) handler() slog.Handler {
	now := *h.logs.now.Load()
	for _, with := range h.with {
		now = with(now)
	}
	return now
}

func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return (*h.logs.now.Load()).Enabled(ctx, level)
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	h.logs.mu.Lock() // the file may be about to be closed
	defer h.logs.mu.Unlock()
	return h.handler().Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.logs, append(slices.Clone(h.with), func(s slog.Handler) slog.Handler { return s.WithAttrs(attrs) })}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.logs, append(slices.Clone(h.with), func(s slog.Handler) slog.Handler { return s.WithGroup(name) })}
}
