package web

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/converge/dispatch/internal/ansi"
	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/signin"
)

// streams are a build's logs, in the order of the page.
var streams = []build.Stream{build.Stdout, build.Stderr}

// buildView is what the page of a build is filled with.
type buildView struct {
	Build view
	Logs  []logView
	// After is where to go on from: a mark.
	After string
}

func (b buildView) Prefix() string { return b.Build.Prefix }

// logView is the end of a log as it is at loading.
type logView struct {
	Name, Title string
	Text        string // where it is as plain text
	Lines, Rest template.HTML
	Cut         bool // there is more before it
	Trouble     string
}

var titles = map[build.Stream]string{build.Stdout: "Output", build.Stderr: "Errors and notes"}

// build answers GET /build: with a log as text, or with the page.
func (w *Web) build(rw http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, log := q.Get("job"), build.Stream(q.Get("log"))
	if id == "" {
		w.message(rw, r, http.StatusBadRequest, "Say which build it is: /build?job=ID")
		return
	}
	if q.Has("log") && log != build.Stdout && log != build.Stderr {
		w.message(rw, r, http.StatusBadRequest, "A log is stdout or stderr: /build?job=ID&log=stdout")
		return
	}
	b, p, ok := w.find(rw, r, id)
	if !ok {
		return
	}
	if b.ID != id { // it waited under another
		to := page(b.ID)
		if q.Has("log") {
			to += "&log=" + string(log)
		}
		w.redirect(rw, to)
		return
	}
	if q.Has("log") {
		w.text(rw, r, b, log, q.Get("follow") != "0")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askFor)
	defer cancel()
	done, ok := w.make(ctx)
	if !ok {
		w.fail(rw, r, build.ErrAway)
		return
	}
	text, err := w.buildPage(ctx, b, p)
	done() // who reads slowly keeps nobody's page from being made
	w.send(rw, http.StatusOK, "build.html", text, err)
}

// buildPage makes the page of a build.
func (w *Web) buildPage(ctx context.Context, b build.Build, p *signin.Person) (string, error) {
	v := buildView{Build: w.view(ctx, b, p, true)}
	var after marks
	for _, log := range streams {
		if b.State == build.Waiting { // it has none yet
			continue
		}
		l, at := w.ending(ctx, b.ID, log)
		after = append(after, at)
		v.Logs = append(v.Logs, l)
	}
	if len(after) > 0 {
		v.After = after.String()
	}
	return w.fill("build.html", v)
}

// ending is the end of a log as it is now, and where it goes on.
func (w *Web) ending(ctx context.Context, id string, log build.Stream) (logView, mark) {
	v := logView{Name: string(log), Title: titles[log], Text: w.prefix + page(id) + "&log=" + string(log)}
	l, err := w.opt.Logs.Open(ctx, id, log, -tail, false)
	if err != nil {
		v.Trouble = w.trouble(id, err)
		return v, mark{}
	}
	defer l.Close()
	text, err := io.ReadAll(io.LimitReader(l, 2*tail)) // it may have grown
	if err != nil {
		v.Trouble = w.trouble(id, err)
	}
	start := l.Offset()
	if start > 0 {
		v.Cut = true
		if i := strings.IndexByte(string(text), '\n'); i >= 0 { // from a line's beginning
			text, start = text[i+1:], start+int64(i)+1
		}
	}
	renderer := ansi.Resume(start, ansi.Style{})
	_, _ = renderer.Write(text)
	lines, rest := renderer.Take()
	// Everything in them was escaped or made by the renderer.
	v.Lines, v.Rest = template.HTML(lines), template.HTML(rest)
	offset, style := renderer.Mark()
	return v, mark{offset, style}
}

// trouble says why there is no log.
func (w *Web) trouble(id string, err error) string {
	switch {
	case errors.Is(err, build.ErrGone):
		return "The log is gone: Nomad has deleted it."
	case errors.Is(err, build.ErrUnknown):
		return "There is no log."
	case errors.Is(err, build.ErrAway):
		return "The log cannot be had at this moment: load the page again."
	}
	w.log.Warn("a log was not read", "build", id, "err", err)
	return "The log cannot be read; the log of dispatch says why."
}

// mark is a line's beginning in a log.
type mark struct {
	offset int64
	style  ansi.Style
}

// marks are those of both logs. As a text they are the id of an event, which a
// browser sends when it comes back.
type marks []mark

func (m marks) String() string {
	var parts []string
	for _, at := range m {
		parts = append(parts, fmt.Sprintf("%d.%s", at.offset, at.style))
	}
	return strings.Join(parts, "_")
}

// parseMarks reads what String made; anything else is the end that a page shows.
func parseMarks(text string) marks {
	m := make(marks, len(streams))
	for i := range m {
		m[i].offset = -tail
	}
	parts := strings.Split(text, "_")
	if len(text) > 100 || len(parts) != len(m) {
		return m
	}
	for i, part := range parts {
		number, style, _ := strings.Cut(part, ".")
		if offset, err := strconv.ParseInt(number, 10, 64); err == nil && offset >= 0 {
			m[i] = mark{offset, ansi.ParseStyle(style)}
		}
	}
	return m
}

// text answers with a log as it is written, from its beginning to its end.
func (w *Web) text(rw http.ResponseWriter, r *http.Request, b build.Build, log build.Stream, follow bool) {
	select {
	case w.plain <- struct{}{}:
		defer func() { <-w.plain }()
	default:
		w.message(rw, r, http.StatusServiceUnavailable, "Too many logs are being read: try again in a moment.")
		return
	}
	ctx, end, ok := w.lasting(r.Context())
	if !ok {
		w.fail(rw, r, build.ErrAway)
		return
	}
	defer end()
	ctx, lose := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { w.watch(ctx, r, b.Repo, lose) })
	defer watching.Wait()
	defer lose()
	l, err := w.opt.Logs.Open(ctx, b.ID, log, 0, follow && r.Method != http.MethodHead)
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	defer l.Close()
	header := rw.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Accel-Buffering", "no") // nginx
	rw.WriteHeader(http.StatusOK)
	control := http.NewResponseController(rw)
	_ = control.Flush() // a build that waits has nothing else to send
	if r.Method == http.MethodHead {
		return
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := l.Read(buffer)
		if n > 0 {
			_ = control.SetWriteDeadline(time.Now().Add(plainWait))
			if _, err := rw.Write(buffer[:n]); err != nil || control.Flush() != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			// The answer's own end is written, too, perhaps long after the last line.
			_ = control.SetWriteDeadline(time.Now().Add(sendWait))
			return
		}
		if err != nil {
			if ctx.Err() == nil {
				w.log.Warn("a log broke off", "build", b.ID, "log", string(log), "err", err)
			}
			panic(http.ErrAbortHandler) // so that whoever reads does not take it for the end
		}
	}
}

// lasting is a context that also Close ends; end is to be called.
func (w *Web) lasting(parent context.Context) (ctx context.Context, end func(), ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, nil, false
	}
	w.ends.Add(1)
	ctx, cancel := context.WithCancel(parent)
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-w.done:
			cancel()
		case <-stop:
		}
	}()
	return ctx, func() {
		close(stop)
		<-stopped
		cancel()
		w.ends.Done()
	}, true
}
