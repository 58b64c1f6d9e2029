package container

import (
	"context"
	"fmt"
	"net"

	"example.com/converge/container/internal/engine"
)

// Check asks the engine whether sessions could begin: whether it is there, the
// existing container runs, or the image is there where it is never pulled. What can
// come right by itself is no error, such as an engine that is not reached until ctx
// ends. Nothing is made or changed. A program calls it when it starts, so that a
// mistake is known before somebody comes.
func Check(ctx context.Context, cfg Config) error {
	h, err := New(net.TCPAddr{}, "", cfg, nil, nil, nil)
	if err != nil {
		return err
	}
	defer h.engine.Close()
	if e := &h.cfg.Execution; e.Existing != "" {
		_, err = h.existing(ctx)
	} else if _, err = h.engine.Image(ctx, e.image()); e.ImagePullPolicy != PullNever && engine.IsNotFound(err) {
		err = nil
	}
	if ctx.Err() != nil { // a permanent error comes before
		return nil
	}
	return failed("look for what sessions need", err)
}

// existing says how the existing container does, which has to run.
func (h *Handler) existing(ctx context.Context) (engine.State, error) {
	var none engine.State
	name, label := h.cfg.Execution.Existing, ""
	if len(name) > len("label=") && name[:len("label=")] == "label=" {
		label = name[len("label="):]
	}
	if label != "" {
		list, err := h.engine.List(ctx, false, label)
		switch {
		case err != nil:
			return none, err
		case len(list) == 0:
			return none, fmt.Errorf("no container with label %s runs", label)
		case len(list) > 1:
			return none, fmt.Errorf("%d containers with label %s run, among them %.12s and %.12s: name one", len(list), label, list[0].ID, list[1].ID)
		}
		name = list[0].ID
	}
	s, err := h.engine.Inspect(ctx, name)
	if err != nil {
		return none, err
	}
	if !s.State.Running {
		return none, fmt.Errorf("container %s does not run, it is %s", h.cfg.Execution.Existing, s.State.Status)
	}
	return s, nil
}
