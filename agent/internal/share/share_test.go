package share

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stage is a room with what it did.
type stage struct {
	*Room
	mu    sync.Mutex
	sizes []Size
	typed bytes.Buffer
	told  []string
	stuck chan struct{} // Type waits for it; nil does not
	wg    sync.WaitGroup
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{}
	s.Room = NewRoom(Config{
		Owner: Person{Name: "owner", Size: Size{80, 24, 800, 480}, Tell: s.tell},
		Resize: func(z Size) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sizes = append(s.sizes, z)
		},
		Type: func(p []byte) (int, error) {
			if s.stuck != nil {
				<-s.stuck
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.typed.Write(p)
		},
	})
	s.wg.Go(s.Run)
	return s
}

func (s *stage) tell(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, text)
}

func (s *stage) end(reason string) {
	s.Close(reason)
	s.wg.Wait()
}

// resized returns the sizes since the last call.
func (s *stage) resized() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprint(s.sizes)
	s.sizes = nil
	return text
}

func (s *stage) news() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.Join(s.told, "|")
	s.told = nil
	return text
}

// screen is a viewer's terminal.
type screen struct {
	*Viewer
	mu     sync.Mutex
	buf    bytes.Buffer
	gate   chan struct{} // a write waits for it; nil does not
	reason string
	told   []string
	done   chan struct{}
}

func (s *stage) view(t *testing.T, p Person, gate chan struct{}) *screen {
	t.Helper()
	sc := &screen{gate: gate, done: make(chan struct{})}
	p.Tell = func(text string) { sc.told = append(sc.told, text) }
	v, err := s.Enter(p, "intro\r\n")
	if err != nil {
		t.Fatal(err)
	}
	sc.Viewer = v
	go func() {
		defer close(sc.done)
		sc.reason = v.Run(sc)
	}()
	return sc
}

func (s *screen) Write(p []byte) (int, error) {
	if s.gate != nil {
		if _, ok := <-s.gate; !ok {
			return 0, io.ErrClosedPipe
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

// shown returns what has been shown since the last call.
func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.buf.Reset()
	return s.buf.String()
}

// leave is what every terminal is left with.
const leaveAll = "\x1b7\x1b[r\x1b8\x1b(B\x0f\x1b[m"

func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.Output([]byte("before\r\n\x1b[6n"))
		watcher := s.view(t, Person{Name: "watcher", Size: Size{Cols: 10, Rows: 5}}, nil)
		synctest.Wait()
		if got, want := watcher.shown(), cleared+"before\r\n\r\nintro\r\n"; got != want {
			t.Errorf("%q, not %q", got, want)
		}
		if got := s.resized(); got != "[]" {
			t.Errorf("a watcher changes the size: %s", got)
		}
		if watcher.Type([]byte("x")) {
			t.Error("a watcher types")
		}
		joiner := s.view(t, Person{Name: "joiner", Types: true, Size: Size{Cols: 100, Rows: 12}}, nil)
		if got := s.resized(); got != "[80x12]" {
			t.Errorf("size %s", got)
		}
		if got := s.Size(); got != (Size{80, 12, 800, 240}) {
			t.Errorf("%+v", got)
		}
		joiner.Resize(Size{Cols: 40, Rows: 30})
		s.ResizeOwner(Size{Cols: 30, Rows: 0})
		joiner.Resize(Size{Cols: 40, Rows: 30}) // no change, no signal
		if got := s.resized(); got != "[40x24 30x30]" {
			t.Errorf("sizes %s", got)
		}
		if !joiner.Type([]byte("ls\r")) {
			t.Error("a joiner cannot type")
		}
		synctest.Wait()
		s.Output([]byte("after\r\n"))
		synctest.Wait()
		if s.typed.String() != "ls\r" {
			t.Errorf("typed %q", s.typed.String())
		}
		for _, v := range []*screen{watcher, joiner} {
			if got := v.shown(); !strings.HasSuffix(got, "after\r\n") {
				t.Errorf("%q", got)
			}
		}
		var people []string
		for _, p := range s.People() {
			people = append(people, fmt.Sprint(p.Name, p.Types, p.Size))
		}
		if got := strings.Join(people, " "); got != "ownertrue 30x0 watcherfalse 10x5 joinertrue 40x30" {
			t.Errorf("people: %s", got)
		}
		joiner.Leave()
		joiner.Leave()
		<-joiner.done
		if joiner.reason != "" || joiner.Type([]byte("x")) || joiner.shown() != leaveAll {
			t.Errorf("left: %q", joiner.reason)
		}
		if got := s.news(); got != "converge: watcher watches this shell|converge: joiner joined this shell and types here too; the terminal is 80x12 now|converge: joiner left this shell; the terminal is 30x0 now" {
			t.Errorf("the owner was told %q", got)
		}
		if got := strings.Join(watcher.told, "|"); got != "converge: joiner joined this shell and types here too; the terminal is 80x12 now|converge: joiner left this shell; the terminal is 30x0 now" {
			t.Errorf("the watcher was told %q", got)
		}
		if got := s.resized(); got != "[30x0]" {
			t.Errorf("size %s", got)
		}
		// What came last comes before the end.
		s.Output([]byte("\x1b[?2004hlast words"))
		s.end("it is over")
		<-watcher.done
		if got := watcher.shown(); watcher.reason != "it is over" || got != "\x1b[?2004hlast words\x1b[?2004l"+leaveAll {
			t.Errorf("%q %q", watcher.reason, got)
		}
		s.Output([]byte("unheard"))
		s.Close("another reason")
		if _, err := s.Enter(Person{}, ""); !errors.Is(err, ErrEnded) {
			t.Errorf("entering an ended shell: %v", err)
		}
		if got := s.news(); got != "" {
			t.Errorf("told at the end: %q", got)
		}
	})
}

// A viewer that takes nothing holds up nobody, holds little, and gets the
// newest picture when it takes something again.
func TestStalledViewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		gate := make(chan struct{})
		stalled := s.view(t, Person{Name: "stalled"}, gate)
		lively := s.view(t, Person{Name: "lively"}, nil)
		synctest.Wait()
		begun := time.Now()
		var want bytes.Buffer
		lively.shown()
		for i := range 50000 {
			line := fmt.Sprintf("%08d a line that is about as long as others are\r\n", i)
			s.Output([]byte(line))
			if i%1000 == 0 {
				synctest.Wait() // lively keeps up
			}
			want.WriteString(line)
		}
		if time.Since(begun) != 0 {
			t.Error("the output was held up")
		}
		s.mu.Lock()
		if n := cap(stalled.queue) + cap(stalled.spare); n > 4*maxQueue {
			t.Errorf("%d bytes are held for a stalled viewer", n)
		}
		s.mu.Unlock()
		synctest.Wait()
		if got := lively.shown(); got != want.String() {
			t.Errorf("%d of %d bytes", len(got), want.Len())
		}
		for range 2 {
			gate <- struct{}{} // what waited, and the picture
		}
		synctest.Wait()
		got := stalled.shown()
		picture, found := strings.CutSuffix(got[strings.LastIndex(got, cleared)+len(cleared):], "\r\n"+skipped+"\r\n")
		if !found || !strings.HasSuffix(want.String(), picture) || len(picture) < maxHistory-historyBlock || len(got) > 2*maxQueue {
			t.Errorf("found %v, %d of %d bytes: %.100q", found, len(picture), len(got), picture)
		}
		// From now on it keeps up.
		s.Output([]byte("on it goes"))
		gate <- struct{}{}
		synctest.Wait()
		if got := stalled.shown(); got != "on it goes" {
			t.Errorf("%q", got)
		}
		// And it is no hindrance to the end either.
		s.Output([]byte("more"))
		synctest.Wait()
		s.end("over")
		<-lively.done
		close(gate)
		<-stalled.done
		if got := len(s.People()); got != 1 {
			t.Errorf("%d people are left", got)
		}
	})
}

// A shell that takes no input holds up those who type, and nobody else; they
// can leave.
func TestStuckShell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.stuck = make(chan struct{})
		joiner := s.view(t, Person{Name: "joiner", Types: true}, nil)
		typed, result := 0, make(chan bool)
		go func() {
			for joiner.Type([]byte("x")) {
				typed++
			}
			result <- true
		}()
		synctest.Wait()
		if typed != maxTyped+1 {
			t.Errorf("%d were taken", typed)
		}
		s.Output([]byte("output"))
		s.ResizeOwner(Size{Cols: 1, Rows: 1})
		joiner.Leave()
		<-result
		<-joiner.done
		s.Close("over")
		close(s.stuck)
		s.wg.Wait()
	})
}
