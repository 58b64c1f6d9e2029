package box

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/container"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestName(t *testing.T) {
	for want, e := range map[string]container.ExecutionConfig{
		"a container of busybox":             {Image: "busybox"},
		"the container build-1":              {Existing: "build-1"},
		"the container with label step=unit": {Existing: "label=step=unit"},
	} {
		b, err := New(container.Config{Execution: e}, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Name(); got != want || b.Terminals() != nil || b.Shell() != "" {
			t.Errorf("%q %v %q, want %q", got, b.Terminals(), b.Shell(), want)
		}
	}
	if _, err := New(container.Config{}, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "no image is given") {
		t.Errorf("nothing: %v", err)
	}
}

// What is given to an sftp server of the configuration's own cannot be told to
// change nothing: then there is none.
func TestReadOnlyFilesRefused(t *testing.T) {
	var cfg container.Config
	cfg.Connection.Host = "unix://" + t.TempDir() + "/none"
	cfg.Execution.Image = "busybox"
	cfg.Execution.Subsystems = map[string]string{"sftp": "/opt/sftp", "other": "/opt/other"}
	cfg.Timeouts.ContainerStart = 1
	b, err := New(cfg, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.Subsystem("sftp") || !b.Subsystem("other") || b.Subsystem("none") {
		t.Error("the wrong subsystems")
	}
	var wg sync.WaitGroup
	never := make(chan struct{})
	p := b.Begin(backend.Peer{ID: "1", User: "abc", Remote: "192.0.2.7:22", ReadOnlyFiles: true}, backend.Owner{Hurry: never, Kill: never, Go: wg.Go})
	var errs bytes.Buffer
	out, err := p.Files(t.Context(), backend.Files{Errors: &errs})
	if out.Status != 1 || !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(errs.String(), "read-only") {
		t.Errorf("%+v %v %q", out, err, &errs)
	}
	// An engine that is not there is the error of all the rest.
	if _, err := p.Start(t.Context(), backend.Program{Line: "true"}); err == nil || !strings.HasPrefix(err.Error(), container.UserMessage) {
		t.Errorf("start: %v", err)
	}
	if _, err := p.Dial(t.Context(), "tcp", "127.0.0.1:1"); err == nil {
		t.Error("connected")
	}
	p.End()
	wg.Wait()
}

func TestLatest(t *testing.T) {
	if got := latest([]string{"A=1", "B=2", "A=3", "C"}); !slices.Equal(got, []string{"B=2", "A=3", "C"}) {
		t.Errorf("%q", got)
	}
}

// A stream gives what was written, in order, and holds no more than it may.
func TestStream(t *testing.T) {
	s := newStream()
	random := rand.New(rand.NewPCG(1, 2))
	sent := make([]byte, 5*streamMost)
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(streamMost*2))
			if m, err := s.Write(rest[:n]); m != n || err != nil {
				t.Error(m, err)
			}
			rest = rest[n:]
		}
		s.end()
	})
	var got []byte
	buf := make([]byte, 100_000)
	for {
		n, err := s.Read(buf)
		got = append(got, buf[:n]...)
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		if len(s.buf)-s.start > streamMost || cap(s.buf) > 4*streamMost {
			t.Errorf("it holds %d of %d", len(s.buf)-s.start, cap(s.buf))
		}
		s.mu.Unlock()
	}
	writer.Wait()
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes, want %d, or others", len(got), len(sent))
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("written after the end")
	}

	// A writer that waits for room hears that nobody reads any more.
	s = newStream()
	writer.Go(func() {
		if n, err := s.Write(sent); n == len(sent) || err == nil {
			t.Error(n, err)
		}
	})
	if _, err := io.ReadFull(s, buf); err != nil {
		t.Error(err)
	}
	s.drop()
	writer.Wait()
	if _, err := s.Read(buf); err == nil {
		t.Error("read after the drop")
	}
}
