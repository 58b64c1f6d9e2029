package container

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"example.com/converge/container/internal/engine"
)

// guestFolder is where the agent is copied to in a container. It lies in the
// root, which every image has, and where only the container's root may write.
const guestFolder = "/.converge"

// guest is the guest agent of a container.
type guest struct {
	// path is "" if there is none.
	path string
	// copied says that it was copied there from this side.
	copied bool
}

// group reports whether it can signal a process group: ContainerSSH's cannot.
func (g guest) group() bool { return path.Base(g.path) != path.Base(ContainerSSHAgentPath) }

// places remembers where the agent was in an image, by the image's name, when it
// was not where it was expected.
var places sync.Map // string to guest

// source returns where the agent comes from that is copied; nil is nowhere.
func (e *ExecutionConfig) source() GuestSource {
	if e.GuestFile != "" {
		return func(context.Context, string, string) (string, error) { return e.GuestFile, nil }
	}
	return e.Guest
}

// expectGuest says where the agent will be in a new container.
func (h *Handler) expectGuest(ctx context.Context, about engine.Image) (guest, error) {
	e := &h.cfg.Execution
	if e.DisableAgent {
		return guest{}, nil
	}
	switch {
	case e.AgentPath != "":
		return guest{path: e.AgentPath}, nil
	case e.source() != nil:
		p, err := h.payload(ctx, about)
		if err != nil {
			return guest{}, err
		}
		return p.guest(), nil
	}
	if known, ok := places.Load(e.image()); ok {
		return known.(guest), nil
	}
	return guest{path: DefaultAgentPath}, nil
}

// findGuest finds the agent in the container, or copies it there.
func (b *box) findGuest(ctx context.Context) error {
	h, e := b.handler, &b.handler.cfg.Execution
	var candidates []string
	switch {
	case e.AgentPath != "":
		candidates = []string{e.AgentPath}
	case e.source() != nil && b.owned:
		// The copy has the same version as this side.
	default:
		candidates = []string{DefaultAgentPath, ContainerSSHAgentPath}
	}
	for _, c := range candidates {
		_, found, err := h.engine.Stat(ctx, b.id, c)
		if err != nil {
			return err
		}
		if found {
			b.guest = guest{path: c}
			return nil
		}
	}
	g, err := b.copyGuest(ctx)
	if err != nil {
		return err
	}
	b.guest = g
	return nil
}

// copyGuest copies the agent into the container, unless it is there already.
func (b *box) copyGuest(ctx context.Context) (guest, error) {
	if b.handler.cfg.Execution.source() == nil {
		return guest{}, missingGuest{errNoGuest}
	}
	about, err := b.imageInfo(ctx)
	if err != nil {
		return guest{}, err
	}
	p, err := b.handler.payload(ctx, about)
	if err != nil {
		return guest{}, err
	}
	g := p.guest()
	if !b.owned {
		done, err := bringing(ctx, b.id+g.path)
		if err != nil {
			return guest{}, err
		}
		defer done()
		// Another connection may have brought it; while a process other than this
		// one does the file is short.
		s, found, err := b.handler.engine.Stat(ctx, b.id, g.path)
		if err != nil || found && s.Size == p.size {
			return g, err
		}
	}
	folder := "/"
	if b.handler.cfg.Execution.Host.ReadonlyRootfs {
		folder = guestFolder // a volume
	}
	if err := b.handler.engine.Upload(ctx, b.id, folder, func() (io.ReadCloser, error) { return p.archive(folder) }); err != nil {
		return guest{}, err
	}
	return g, nil
}

// brought is what is being copied: a file that is replaced while it runs may not
// start, or end.
var brought struct {
	mu   sync.Mutex
	busy map[string]chan struct{}
}

// bringing waits until nobody else copies that file to that container, and returns
// what ends that for this one.
func bringing(ctx context.Context, place string) (done func(), err error) {
	for {
		brought.mu.Lock()
		other := brought.busy[place]
		if other == nil {
			mine := make(chan struct{})
			if brought.busy == nil {
				brought.busy = map[string]chan struct{}{}
			}
			brought.busy[place] = mine
			brought.mu.Unlock()
			return func() {
				brought.mu.Lock()
				defer brought.mu.Unlock()
				delete(brought.busy, place)
				close(mine)
			}, nil
		}
		brought.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// payload is an executable that is copied into containers.
type payload struct {
	file string
	size int64
	sum  string // the beginning of its SHA-256, in hex
}

func (p payload) guest() guest {
	return guest{path: guestFolder + "/guest-" + p.sum, copied: true}
}

// sums remembers digests of files by path, size and time.
var sums sync.Map

type fileVersion struct {
	path string
	size int64
	time time.Time
}

// missingGuest is an error that says that there is no agent to be had, whatever
// the engine does.
type missingGuest struct{ error }

func (e missingGuest) Unwrap() error { return e.error }

// payload returns the agent for an image's platform. Its error is a missingGuest.
func (h *Handler) payload(ctx context.Context, about engine.Image) (payload, error) {
	p, err := h.findPayload(ctx, about)
	if err != nil {
		err = missingGuest{err}
	}
	return p, err
}

func (h *Handler) findPayload(ctx context.Context, about engine.Image) (payload, error) {
	goos, arch := about.OS, about.Architecture
	if goos == "" {
		goos = "linux"
	}
	if goos != "linux" {
		return payload{}, fmt.Errorf("copy the guest agent: containers of %s are not served, only those of linux", goos)
	}
	file, err := h.cfg.Execution.source()(ctx, goos, arch)
	if err != nil {
		return payload{}, fmt.Errorf("find a guest agent for %s/%s: %w", goos, arch, err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return payload{}, fmt.Errorf("copy the guest agent: %w", err)
	}
	if !info.Mode().IsRegular() {
		return payload{}, fmt.Errorf("copy the guest agent: %s is not a file", file)
	}
	version := fileVersion{file, info.Size(), info.ModTime()}
	if sum, ok := sums.Load(version); ok {
		return payload{file, info.Size(), sum.(string)}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return payload{}, fmt.Errorf("copy the guest agent: %w", err)
	}
	defer func() { _ = f.Close() }()
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	if err != nil {
		return payload{}, fmt.Errorf("copy the guest agent: read %s: %w", file, err)
	}
	if n != info.Size() {
		return payload{}, fmt.Errorf("copy the guest agent: %s is being written", file)
	}
	sum := hex.EncodeToString(hash.Sum(nil)[:6])
	sums.Store(version, sum)
	return payload{file, n, sum}, nil
}

// archive returns the tar archive to unpack in folder, as it is read.
func (p payload) archive(folder string) (io.ReadCloser, error) {
	f, err := os.Open(p.file)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	name := strings.TrimPrefix(strings.TrimPrefix(p.guest().path, folder), "/")
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = f.Close() }()
		_ = w.CloseWithError(p.write(w, name, f))
	}()
	return &archive{r, done}, nil
}

func (p payload) write(w io.Writer, name string, f io.Reader) error {
	t := tar.NewWriter(w)
	stamp := time.Unix(0, 0)
	if dir := path.Dir(name); dir != "." {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: stamp}); err != nil {
			return err
		}
	}
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: p.size, ModTime: stamp}); err != nil {
		return err
	}
	if _, err := io.CopyN(t, f, p.size); err != nil {
		return fmt.Errorf("read %s: %w", p.file, err)
	}
	return t.Close()
}

// archive waits for its writer when it is closed.
type archive struct {
	*io.PipeReader
	done chan struct{}
}

func (a *archive) Close() error {
	err := a.PipeReader.Close()
	<-a.done
	return err
}
