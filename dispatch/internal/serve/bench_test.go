package serve

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
)

// object is a commit's id made of a number.
func object(i int) string { return fmt.Sprintf("%040x", i+1) }

// memory is what is in use after a collection, in MiB.
func memory() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// burst sends so many pushes, sixteen at a time, and returns the builds.
func (h *house) burst(count int) []string {
	h.t.Helper()
	ids := make([]string, count)
	var senders sync.WaitGroup
	next := make(chan int)
	for range 16 {
		senders.Go(func() {
			for i := range next {
				resp, err := http.Post(h.url+"/hook?token="+token, "application/json", strings.NewReader(h.push(fmt.Sprint("b", i), object(i), "ann")))
				if err != nil {
					h.t.Error(err)
					continue
				}
				text, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					h.t.Errorf("%s %s", resp.Status, text)
				}
				ids[i] = string(text)
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	senders.Wait()
	return ids
}

// told waits until each commit has a status, and fails the test otherwise.
func (h *house) told(count int, state string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 3*time.Minute)
	defer cancel()
	for i := range count {
		for {
			changed := h.gitea.Changed()
			all := h.gitea.Statuses(project, object(i))
			if len(all) > 0 && all[len(all)-1].State == state {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				h.t.Fatalf("the commit %d: %+v", i, all)
			}
		}
	}
}

// TestBurst: a hundred webhooks at once become a hundred builds, each with its
// end; BenchmarkBurst has a thousand.
func TestBurst(t *testing.T) { burst(newHouse(t), 100) }

func burst(h *house, count int) (took time.Duration, requests int) {
	h.start()
	began := time.Now()
	ids := h.burst(count)
	took = time.Since(began)
	for _, id := range ids {
		h.nomad.Start(id)
		h.nomad.Write(id, "stdout", "some words\n")
		h.nomad.Finish(id, 0)
	}
	h.told(count, "success")
	for _, id := range ids {
		h.archived(id, build.Stdout)
	}
	return took, h.nomad.Requests("GET /v1/jobs") + h.nomad.Requests("GET /v1/allocations")
}

// BenchmarkBurst is a thousand webhooks, with the answers' rate, the questions
// that watching them took, and what is left in memory for each build.
func BenchmarkBurst(b *testing.B) {
	const count = 1000
	for b.Loop() {
		h := newHouse(b)
		before, goroutines := memory(), runtime.NumGoroutine()
		took, requests := burst(h, count)
		b.ReportMetric(float64(count)/took.Seconds(), "webhooks/s")
		b.ReportMetric(float64(requests), "watch-requests")
		b.ReportMetric((memory()-before)*1024/count, "KiB/build")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines), "goroutines")
		h.stop()
	}
}

// follow has every build's log read by two people, and returns what it cost.
func follow(h *house, builds, rounds int) (heap float64, goroutines, streams int) {
	h.t.Helper()
	e := h.engineOf()
	var ids []string
	for i := range builds {
		w := h.want()
		w.Commit = object(i)
		b, err := e.Launch(h.t.Context(), w)
		if err != nil {
			h.t.Fatal(err)
		}
		h.nomad.Start(b.ID)
		ids = append(ids, b.ID)
	}
	const line = "one line of a log that grows, as long as such lines are\n"
	before, running := memory(), runtime.NumGoroutine()
	var readers sync.WaitGroup
	half := make(chan struct{}, 2*builds)
	for _, id := range ids {
		for range 2 {
			readers.Go(func() {
				r, err := e.Open(h.t.Context(), id, build.Stdout, 0, true)
				if err != nil {
					h.t.Error(err)
					return
				}
				defer r.Close()
				first := make([]byte, rounds*len(line))
				if _, err := io.ReadFull(r, first); err != nil {
					h.t.Error(err)
				}
				half <- struct{}{}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len("end\n")) {
					h.t.Errorf("%d bytes more, %v", n, err)
				}
			})
		}
	}
	for range rounds {
		for _, id := range ids {
			h.nomad.Write(id, "stdout", line)
		}
	}
	for range 2 * builds {
		<-half
	}
	heap, goroutines = memory()-before, runtime.NumGoroutine()-running
	streams = h.nomad.Requests("GET /v1/client/fs/logs/")
	for _, id := range ids {
		h.nomad.Write(id, "stdout", "end\n")
		h.nomad.Finish(id, 0)
	}
	readers.Wait()
	return heap, goroutines, streams
}

// TestFollowMany: twenty builds, each read by two; BenchmarkFollow has two
// hundred.
func TestFollowMany(t *testing.T) { follow(newHouse(t), 20, 5) }

// BenchmarkFollow is two hundred builds followed at once by two people each.
func BenchmarkFollow(b *testing.B) {
	for b.Loop() {
		h := newHouse(b)
		heap, goroutines, streams := follow(h, 200, 20)
		b.ReportMetric(heap*1024/200, "KiB/build")
		b.ReportMetric(float64(goroutines)/200, "goroutines/build")
		b.ReportMetric(float64(streams)/200, "streams/build")
		h.stop()
	}
}
