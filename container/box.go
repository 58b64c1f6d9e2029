package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	dockercontainer "github.com/moby/moby/api/types/container"

	"example.com/converge/container/internal/engine"
)

// box is one container.
type box struct {
	handler *Handler
	id      string
	// image is the name or id of its image.
	image string
	// owned says that this side made it, and removes it.
	owned bool
	// guest is the guest agent in it; none if its path is "".
	guest guest

	removing sync.Once

	mu    sync.Mutex
	about *engine.Image // of image, once asked
	shell []string      // once looked for
}

// maxProcesses is the limit of processes in a container unless the
// configuration has one.
const maxProcesses = 4096

const noNewPrivileges = "no-new-privileges"

// dropped is what a container may not do, with what few need, unless that is asked
// for.
func dropped(add, drop []string) []string {
	said := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(c string) bool {
			c = strings.TrimPrefix(strings.ToUpper(c), "CAP_")
			return c == name || c == "ALL"
		})
	}
	drop = slices.Clone(drop)
	for _, name := range []string{"AUDIT_WRITE", "MKNOD", "NET_RAW"} {
		if !said(add, name) && !said(drop, name) {
			drop = append(drop, "CAP_"+name)
		}
	}
	return drop
}

// request puts together what the engine is asked to make.
func (h *Handler) request(username string) dockercontainer.CreateRequest {
	e := &h.cfg.Execution
	config, host, net := e.Container, e.Host, e.Network
	config.Image = e.image()
	config.Labels = maps.Clone(config.Labels)
	if config.Labels == nil {
		config.Labels = map[string]string{}
	}
	maps.Copy(config.Labels, h.labels(username))
	config.Volumes = maps.Clone(config.Volumes)
	// The session needs the container's status after its end: what ends is
	// removed from here.
	host.AutoRemove = false
	if !e.Unhardened {
		if !slices.ContainsFunc(host.SecurityOpt, func(o string) bool { return strings.HasPrefix(o, noNewPrivileges) }) {
			host.SecurityOpt = append(slices.Clone(host.SecurityOpt), noNewPrivileges)
		}
		if host.PidsLimit == nil {
			limit := int64(maxProcesses)
			host.PidsLimit = &limit
		}
		if !host.Privileged {
			host.CapDrop = dropped(host.CapAdd, host.CapDrop)
		}
	}
	if host.ReadonlyRootfs && (e.Guest != nil || e.GuestFile != "") {
		// Nothing can be copied into a root that is read-only, but into a
		// volume, which goes with the container.
		if config.Volumes == nil {
			config.Volumes = map[string]struct{}{}
		}
		config.Volumes[guestFolder] = struct{}{}
	}
	return dockercontainer.CreateRequest{Config: &config, HostConfig: &host, NetworkingConfig: &net}
}

// platform returns the platform as the engine's API has it.
func (h *Handler) platform() string {
	p := h.cfg.Execution.Platform
	text := p.OS
	for _, part := range []string{p.Architecture, p.Variant} {
		if text != "" && part != "" {
			text += "/" + part
		}
	}
	return text
}

// create makes a container. If it fails nothing is left.
func (h *Handler) create(ctx context.Context, req dockercontainer.CreateRequest, about engine.Image) (*box, error) {
	random := make([]byte, 10)
	_, _ = rand.Read(random) // never fails
	name := "converge-" + hex.EncodeToString(random)
	// Counted before, so that the sum is never too small.
	open.Add(1)
	// Not given up when the client goes: an engine may make what nobody waits
	// for any more, after it was asked to remove it.
	making, cancel := h.patiently(ctx)
	defer cancel()
	id, err := h.engine.Create(making, name, h.platform(), req)
	b := &box{handler: h, id: id, image: req.Image, owned: true, about: &about}
	switch {
	case err == nil && ctx.Err() != nil:
		b.remove()
		return nil, ctx.Err()
	case err == nil:
	case engine.IsTransient(err):
		// It may be there all the same, or come to be.
		b.id = name
		h.leaving.Go(b.removeComing)
		return nil, err
	default:
		open.Add(-1)
		return nil, err
	}
	h.log.Debug("made a container", "container", id)
	return b, nil
}

// patiently returns a context that ends at the deadline of another, and not before
// unless there is a hurry.
func (h *Handler) patiently(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(h.effort, deadline)
	}
	return context.WithCancel(h.effort)
}

// ensureImage describes the image, pulling it first as the policy has it.
func (h *Handler) ensureImage(ctx context.Context) (engine.Image, error) {
	e := &h.cfg.Execution
	if e.ImagePullPolicy != PullAlways {
		about, err := h.engine.Image(ctx, e.image())
		other := err == nil && e.Platform.OS != "" && about.OS != "" && (about.OS != e.Platform.OS ||
			e.Platform.Architecture != "" && about.Architecture != e.Platform.Architecture)
		if e.ImagePullPolicy == PullNever || !engine.IsNotFound(err) && !other {
			return about, err
		}
	}
	if err := h.engine.Pull(ctx, e.image(), h.platform(), e.Auth); err != nil {
		return engine.Image{}, err
	}
	return h.engine.Image(ctx, e.image())
}

// launch makes the container of a connection and starts it.
func (h *Handler) launch(ctx context.Context, username string) (*box, error) {
	b, err := h.prepare(ctx, h.request(username), func(c *dockercontainer.Config, g guest, _ engine.Image) error {
		argv := h.cfg.Execution.idle()
		if argv == nil {
			argv = []string{g.path, "wait-signal", "--signal", "INT", "--signal", "TERM"}
		}
		runs(c, argv)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := h.engine.Start(ctx, b.id); err != nil {
		b.remove()
		return nil, err
	}
	return b, nil
}

// runs makes argv what a container runs.
func runs(c *dockercontainer.Config, argv []string) {
	if c.Entrypoint == nil {
		// So that the image's own does not come first.
		c.Entrypoint, c.Cmd = argv[:1:1], slices.Clone(argv[1:])
	} else {
		c.Cmd = argv
	}
}

// prepare makes a container whose process 1 is what command sets, or what the image
// says. That depends on where the agent is, which is known for certain only when
// the container is there: if the agent is elsewhere, the container is made once
// more.
func (h *Handler) prepare(ctx context.Context, req dockercontainer.CreateRequest, command func(*dockercontainer.Config, guest, engine.Image) error) (*box, error) {
	about, err := h.ensureImage(ctx)
	if err != nil {
		return nil, err
	}
	expected, err := h.expectGuest(ctx, about)
	if err != nil {
		return nil, err
	}
	for range 2 {
		asked, config := req, *req.Config
		asked.Config = &config
		if err := command(&config, expected, about); err != nil {
			return nil, err
		}
		b, err := h.create(ctx, asked, about)
		if err != nil || h.cfg.Execution.DisableAgent {
			return b, err
		}
		if err := b.findGuest(ctx); err != nil {
			b.remove()
			return nil, err
		}
		if b.guest == expected {
			return b, nil
		}
		expected = b.guest
		if !expected.copied && h.cfg.Execution.AgentPath == "" {
			places.Store(req.Image, expected)
		}
		b.remove()
	}
	return nil, fmt.Errorf("the guest agent is at another place in each container of image %s", req.Image)
}

// imageInfo asks for the container's image, once.
func (b *box) imageInfo(ctx context.Context) (engine.Image, error) {
	b.mu.Lock()
	about := b.about
	b.mu.Unlock()
	if about != nil {
		return *about, nil
	}
	i, err := b.handler.engine.Image(ctx, b.image)
	if err != nil {
		return i, err
	}
	b.mu.Lock()
	b.about = &i
	b.mu.Unlock()
	return i, nil
}

// remove removes a container that this side made. It returns when it is gone,
// or the time for that is up; then Sweep will find it.
func (b *box) remove() {
	if !b.owned {
		return
	}
	b.removing.Do(func() {
		// It goes also when the connection is gone.
		ctx, cancel := context.WithTimeout(b.handler.effort, b.handler.cfg.Timeouts.ContainerStop.or(defaultLimit))
		defer cancel()
		if err := b.handler.engine.Remove(ctx, b.id); err != nil {
			b.handler.log.Error("a container could not be removed", "container", b.id, "err", err)
			return
		}
		open.Add(-1)
		b.handler.log.Debug("removed a container", "container", b.id)
	})
}

// removeComing removes what may be there by its name, now or in a while.
func (b *box) removeComing() {
	b.removing.Do(func() {
		ctx, cancel := context.WithTimeout(b.handler.effort, b.handler.cfg.Timeouts.ContainerStop.or(defaultLimit))
		defer cancel()
		if err := b.handler.engine.RemoveComing(ctx, b.id); err != nil && !engine.IsNotFound(err) {
			b.handler.log.Error("a container could not be removed, if there is one", "container", b.id, "err", err)
			return
		}
		open.Add(-1)
	})
}

// defaultShells are tried in this order.
var defaultShells = []string{"/bin/bash", "/bin/sh"}

// shellCommand returns the shell to run.
func (b *box) shellCommand(ctx context.Context) ([]string, error) {
	if given := b.handler.cfg.Execution.ShellCommand; len(given) > 0 {
		return given, nil
	}
	b.mu.Lock()
	shell := b.shell
	b.mu.Unlock()
	if shell != nil {
		return shell, nil
	}
	for _, path := range defaultShells {
		_, found, err := b.handler.engine.Stat(ctx, b.id, path)
		if err != nil {
			return nil, err
		}
		if found {
			b.mu.Lock()
			b.shell = []string{path}
			b.mu.Unlock()
			return []string{path}, nil
		}
	}
	return nil, fmt.Errorf("the image has no shell, neither %s nor %s: configure the one that it has, or use sftp and forwarding, which need none", defaultShells[0], defaultShells[1])
}
