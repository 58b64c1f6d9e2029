package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
)

// Labels of each container that is made.
const (
	// LabelConnection is the id of its connection.
	LabelConnection = "converge.connection"
	// LabelClient is the address of its client.
	LabelClient = "converge.client"
	// LabelUser is the name of its user.
	LabelUser = "converge.user"
	// LabelOwner is the process that made it, in this package's own terms.
	LabelOwner = "converge.owner"
)

func (h *Handler) labels(username string) map[string]string {
	return map[string]string{
		LabelConnection: h.connectionID,
		LabelClient:     h.client.String(),
		LabelUser:       username,
		LabelOwner:      self().String(),
	}
}

// owner is a process, told from all others of this machine.
type owner struct {
	// machine is the run of a system: its boot, where it can be told.
	machine string
	// space is the space of process ids in which pid is one.
	space string
	pid   string
	// start is when it started, so that its number can be given to another.
	start string
}

const ownerVersion = "1"

func (o owner) String() string {
	return strings.Join([]string{ownerVersion, o.machine, o.space, o.pid, o.start}, "/")
}

func parseOwner(s string) (owner, bool) {
	parts := strings.Split(s, "/")
	if len(parts) != 5 || parts[0] != ownerVersion || parts[1] == "" || parts[3] == "" {
		return owner{}, false
	}
	return owner{parts[1], parts[2], parts[3], parts[4]}, true
}

// gone reports whether the process is certainly no more. Of another machine, or
// another space of process ids, nothing is certain.
func (o owner) gone(me owner) bool {
	if o.machine != me.machine || o.space != me.space || o.space == "" {
		return false
	}
	start, exists := processStart(o.pid)
	return !exists || start != "" && o.start != "" && start != o.start
}

// ourName is a name by which containers are made here; engines put a slash before it.
var ourName = regexp.MustCompile(`^/?converge-[0-9a-f]{20}$`)

func isOurs(name string) bool { return ourName.MatchString(name) }

// Sweep removes containers that this package has made in a process that was
// killed before it could remove them. It touches only those with its own labels and names
// whose process is certainly gone, which it can tell of processes on this
// machine, and in this space of process ids, alone. It returns how many it
// removed; the error is of those that it could not. A program calls it once when
// it starts.
func Sweep(ctx context.Context, cfg Config, logger *slog.Logger) (removed int, err error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	e, err := cfg.engine(nil, nil)
	if err != nil {
		return 0, failed("sweep containers", err)
	}
	defer e.Close()
	list, err := e.List(ctx, true, LabelOwner)
	if err != nil {
		return 0, failed("sweep containers", err)
	}
	me := self()
	var errs []error
	for _, c := range list {
		o, ok := parseOwner(c.Labels[LabelOwner])
		// An image that was committed from one of ours gives the labels to all of
		// its own.
		if !ok || !slices.ContainsFunc(c.Names, isOurs) || !o.gone(me) {
			continue
		}
		if err := e.Remove(ctx, c.ID); err != nil {
			errs = append(errs, fmt.Errorf("container %.12s: %w", c.ID, err))
			continue
		}
		removed++
		logger.Info("removed a container that was left behind", "container", c.ID,
			"connection", c.Labels[LabelConnection], "user", c.Labels[LabelUser])
	}
	return removed, failed("sweep containers", errors.Join(errs...))
}
