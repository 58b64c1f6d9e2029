package hook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/semaphore"
)

// TestSlow: who announces much and sends little keeps nobody out, and who finds no
// place is told so in time.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hook{memory: semaphore.NewWeighted(maxMemory)}
		const slow = maxMemory/memoryStep - 2
		type result struct {
			text []byte
			held int64
			err  error
		}
		results := make(chan result, slow)
		var ends []*io.PipeWriter
		for range slow {
			from, to := io.Pipe()
			ends = append(ends, to)
			go func() {
				text, held, err := h.read(t.Context(), from)
				results <- result{text, held, err}
			}()
			if _, err := to.Write([]byte("{")); err != nil {
				t.Fatal(err)
			}
		}
		body := strings.Repeat("x", memoryStep+1)
		text, held, err := h.read(t.Context(), strings.NewReader(body))
		if err != nil || string(text) != body || held != 2*memoryStep {
			t.Errorf("beside them: %d bytes, %d held, %v", len(text), held, err)
		}
		// Nothing is left.
		if _, held, err := h.read(t.Context(), strings.NewReader(body)); !errors.Is(err, errBusy) || held != 0 {
			t.Errorf("%d held, %v", held, err)
		}
		h.memory.Release(held)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := h.read(ended, bytes.NewReader(make([]byte, 3*memoryStep))); !errors.Is(err, errBusy) {
			t.Errorf("of one who has gone: %v", err)
		}
		for _, to := range ends {
			_ = to.CloseWithError(errors.New("cut"))
		}
		for range slow {
			r := <-results
			if r.err == nil || r.text != nil || r.held != memoryStep {
				t.Fatalf("%+v", r)
			}
			h.memory.Release(r.held)
		}
		if !h.memory.TryAcquire(maxMemory) {
			t.Error("some of it was not given back")
		}
	})
}
