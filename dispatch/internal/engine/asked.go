package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/nomad"
)

// lookAsked is how often the program that serves looks for what commands have asked.
const lookAsked = time.Second

// asked is the folder of the state in which a command leaves a file, named as a build
// that waits, to have it dismissed: Nomad, by which commands act on the others, does
// not know it.
func (e *Engine) asked() string { return filepath.Join(e.o.Settings.StateDir, "cancel") }

// askToDismiss leaves a build to the program that serves. The id is of one that was
// read from its state.
func (e *Engine) askToDismiss(id string) error {
	if err := os.WriteFile(filepath.Join(e.asked(), id), nil, 0o600); err != nil {
		return fmt.Errorf("cannot tell the dispatch that serves: run this as its user, with its --state-dir: %w", err)
	}
	return nil
}

// dismissAsked does what was asked until ctx ends, also what was asked before.
func (e *Engine) dismissAsked(ctx context.Context) {
	for {
		files, err := os.ReadDir(e.asked())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			e.log.Warn("what dispatch cancel has asked cannot be read", "err", err)
		}
		for _, file := range files {
			e.mu.Lock()
			if x := e.builds[file.Name()]; x != nil && x.rec.State == build.Waiting && x.rec.Became == "" {
				e.log.Info("build is cancelled", "build", x.rec.ID, "by", name(build.Who{Local: true}))
				e.dismiss(x, nomad.ReasonCancelled)
			}
			e.mu.Unlock()
			if err := os.Remove(filepath.Join(e.asked(), file.Name())); err != nil {
				e.log.Warn("what dispatch cancel has asked stays there", "err", err)
			}
		}
		if !rest(ctx, lookAsked) {
			return
		}
	}
}
