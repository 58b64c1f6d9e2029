package sessions

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// stream refreshes a page by server-sent events (WHATWG HTML, section 9.2),
// each the new table as a whole, when it has changed.
func (h *Handler) stream(w http.ResponseWriter, r *http.Request) {
	v, gone, done, err := h.viewer(r)
	switch {
	case err != nil:
		h.refuse(w, err)
		return
	case v == nil:
		http.Error(w, "sign in first", http.StatusUnauthorized)
		return
	}
	defer done()
	if !h.enter() {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many pages are refreshed live: load the page again now and then", http.StatusServiceUnavailable)
		return
	}
	defer h.leave()
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // nginx
	control := http.NewResponseController(w)
	send := func(text string) bool {
		_ = control.SetWriteDeadline(time.Now().Add(sendWait))
		_, err := io.WriteString(w, text)
		return err == nil && control.Flush() == nil
	}
	if !send("retry: 3000\n\n") {
		return
	}
	ticker := time.NewTicker(h.tick)
	defer ticker.Stop()
	over := time.NewTimer(liveFor)
	defer over.Stop()
	var last string
	said := time.Now()
	for {
		var b strings.Builder
		if err := h.pages.ExecuteTemplate(&b, "table.html", h.view(v, query(r))); err != nil {
			h.log.Error("sessions page not served", "err", err)
			return
		}
		switch text := b.String(); {
		case text != last:
			if !send(event(text)) {
				return
			}
			last, said = text, time.Now()
		case time.Since(said) >= quiet:
			if !send(": still here\n\n") {
				return
			}
			said = time.Now()
		}
		select {
		case <-ticker.C:
		case <-gone: // signed out, or revoked
			send("event: gone\ndata:\n\n")
			return
		case <-over.C:
			return
		case <-h.done:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// event makes an event of a text.
func event(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(&b, "data: %s\n", line)
		}
	}
	return b.String() + "\n"
}

// enter counts a live page in, unless there are too many.
func (h *Handler) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.live >= maxLive {
		return false
	}
	h.live++
	h.ends.Add(1)
	return true
}

func (h *Handler) leave() {
	h.mu.Lock()
	h.live--
	h.mu.Unlock()
	h.ends.Done()
}
