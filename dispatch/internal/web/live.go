package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"example.com/converge/dispatch/internal/ansi"
	"example.com/converge/dispatch/internal/build"
)

// sse is a page that follows, by server-sent events (WHATWG HTML, section 9.2).
type sse struct {
	ctx     context.Context
	end     func()
	w       http.ResponseWriter
	control *http.ResponseController
}

// follow begins one, or says that there are too many. end is to be called.
func (w *Web) follow(rw http.ResponseWriter, r *http.Request) (*sse, bool) {
	if !w.enter() {
		rw.Header().Set("Retry-After", "10")
		http.Error(rw, "too many pages follow: load the page again now and then", http.StatusServiceUnavailable)
		return nil, false
	}
	ctx, end, ok := w.lasting(r.Context())
	if !ok {
		w.leave()
		http.Error(rw, "dispatch is ending: load the page again in a moment", http.StatusServiceUnavailable)
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, liveFor)
	header := rw.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // nginx
	s := &sse{ctx: ctx, w: rw, control: http.NewResponseController(rw)}
	s.end = func() {
		_ = s.control.SetWriteDeadline(time.Now().Add(sendWait)) // for the answer's own end
		cancel()
		end()
		w.leave()
	}
	if !s.write("retry: 3000\n\n") {
		s.end()
		return nil, false
	}
	return s, true
}

func (s *sse) write(text string) bool {
	_ = s.control.SetWriteDeadline(time.Now().Add(sendWait))
	_, err := io.WriteString(s.w, text)
	return err == nil && s.control.Flush() == nil
}

// send sends an event; without a name and data it is a sign of life.
func (s *sse) send(name, id, data string) bool {
	if name == "" && data == "" {
		return s.write(": still here\n\n")
	}
	var b strings.Builder
	if name != "" {
		fmt.Fprintf(&b, "event: %s\n", name)
	}
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(data), "\n") {
		fmt.Fprintf(&b, "data: %s\n", strings.TrimRight(line, "\r"))
	}
	return s.write(b.String() + "\n")
}

// piece is what was added to a log, as the page's script takes it.
type piece struct {
	Log   build.Stream `json:"log"`
	Lines string       `json:"lines,omitempty"`
	Rest  string       `json:"rest"`
	// Anew says that what is shown of the log is to be dropped first.
	Anew    bool   `json:"anew,omitempty"`
	Trouble string `json:"trouble,omitempty"`

	at   mark
	over bool
}

// events follows a build: its head whenever it changes, and both logs.
func (w *Web) events(rw http.ResponseWriter, r *http.Request, id string) {
	b, p, ok := w.find(rw, r, id)
	if !ok {
		return
	}
	s, ok := w.follow(rw, r)
	if !ok {
		return
	}
	defer s.end()
	ctx, cancel := context.WithCancel(s.ctx)
	changes := w.opt.Store.Subscribe(ctx, b.ID)
	from := r.Header.Get("Last-Event-ID")
	if from == "" {
		from = r.URL.Query().Get("after")
	}
	at := parseMarks(from)
	pieces := make(chan piece)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	for i, log := range streams {
		id, from := b.ID, at[i]
		if b.State != build.Waiting { // which has no logs yet
			reading.Go(func() { w.read(ctx, id, log, from, pieces) })
		}
	}
	quiet := time.NewTicker(w.quiet)
	defer quiet.Stop()
	last, open := "", len(streams)
	for {
		// The newest state may have come between the page and the subscription.
		if now, err := w.opt.Store.Get(ctx, b.ID); err == nil {
			if now.ID != b.ID { // it waited, and is built under another
				s.send("gone", "", "gone")
				return
			}
			b = now
		}
		head, err := w.fill("head.html", w.view(ctx, b, p, true))
		if err != nil {
			w.log.Error("a page was not served", "err", err)
			return
		}
		if head != last && !s.send("head", "", head) {
			return
		}
		last = head
		if open == 0 && !b.State.Live() {
			s.send("end", "", "over")
			return
		}
		for again := true; again; {
			again = false
			select {
			case <-ctx.Done():
				return
			case _, ok := <-changes:
				if !ok {
					return
				}
			case piece := <-pieces:
				for i, log := range streams {
					if log == piece.Log {
						at[i] = piece.at
					}
				}
				if piece.over {
					open--
				}
				text, err := json.Marshal(piece)
				if err != nil || !s.send("log", at.String(), string(text)) {
					return
				}
				again = !piece.over
			case <-quiet.C:
				if w.lost(ctx, r, b.Repo) || p != nil && w.who(r) == nil { // signed out
					s.send("gone", "", "gone")
					return
				}
				if !s.send("", "", "") {
					return
				}
			}
		}
	}
}

// read renders a log from a mark to its end, and sends the pieces.
func (w *Web) read(ctx context.Context, id string, log build.Stream, from mark, pieces chan<- piece) {
	p := piece{Log: log, at: from}
	send := func() bool {
		select {
		case pieces <- p:
			return true
		case <-ctx.Done():
			return false
		}
	}
	l, err := w.opt.Logs.Open(ctx, id, log, from.offset, true)
	if err != nil {
		if ctx.Err() == nil {
			p.Trouble, p.over = w.trouble(id, err), true
			send()
		}
		return
	}
	defer l.Close()
	renderer := ansi.Resume(l.Offset(), from.style)
	p.Anew = l.Offset() != from.offset
	buffer := make([]byte, 32<<10)
	for {
		n, err := l.Read(buffer)
		if errors.Is(err, build.ErrAnew) {
			renderer, p = ansi.Resume(0, ansi.Style{}), piece{Log: log, Anew: true}
			if !send() {
				return
			}
			p.Anew = false
			continue
		}
		_, _ = renderer.Write(buffer[:n])
		p.Lines, p.Rest = renderer.Take()
		p.at.offset, p.at.style = renderer.Mark()
		p.over = err != nil
		if err != nil && !errors.Is(err, io.EOF) {
			if ctx.Err() != nil {
				return
			}
			p.Trouble = w.trouble(id, err)
		}
		if (n > 0 || p.over) && !send() || p.over {
			return
		}
		p.Anew = false
	}
}
