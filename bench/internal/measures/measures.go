//go:build linux

// Package measures takes the figures: each measure runs all its peers round by
// round, in another order each time, and puts the samples into sheets. It must
// not know how a peer is set up.
package measures

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/table"
)

const (
	mib = 1 << 20
	gib = 1 << 30
	// stepWait bounds one sample of one peer.
	stepWait = 10 * time.Minute
)

// Config says what is measured and how much of it.
type Config struct {
	// Lab is where the peers come from.
	Lab *peers.Lab
	// Peers are compared, in this order in the tables.
	Peers []peers.Peer
	// Rounds is how many samples each cell gets.
	Rounds int
	// Size is how many bytes one transfer moves.
	Size int64
	// FarSize is the same over the line with a delay.
	FarSize int64
	// Delay is that line's, one way.
	Delay time.Duration
	// Rest is how long a connection stands before its server is killed.
	Rest time.Duration
	// Streams is how many streams there are at a time, where it is not one.
	Streams int
	// Keys is how many keystrokes, and Logins how many logins, a round has.
	Keys, Logins int
	// Connections are the numbers of idle connections, growing.
	Connections []int
	// Files is how many a repository has that is updated.
	Files int
	// Log is told what is being done; it must not be nil.
	Log func(format string, args ...any)
}

// Measure is one kind of figures.
type Measure struct {
	// Name is for options.
	Name string
	// Run takes the figures. A peer that fails is noted in the sheets; an
	// error is for what concerns all, such as the end of ctx.
	Run func(ctx context.Context, cfg Config) ([]*table.Sheet, error)
}

// All lists the measures in the order of the report.
func All() []Measure {
	return []Measure{
		{"relay", relay}, {"transfer", transfer}, {"echo", echo}, {"login", login},
		{"memory", memory}, {"distance", distance}, {"start", start}, {"resume", resume},
		{"container", inContainer}, {"update", update},
	}
}

// Select returns the measures of the given names in the order of All; no names
// are all.
func Select(names []string) ([]Measure, error) {
	all := All()
	if len(names) == 0 {
		return all, nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(m Measure) bool { return m.Name == name }) {
			return nil, fmt.Errorf("no measure is called %q", name)
		}
	}
	return slices.DeleteFunc(all, func(m Measure) bool { return !slices.Contains(names, m.Name) }), nil
}

// contender is a peer that is running.
type contender struct {
	peer peers.Peer
	line *peers.Line
}

// contest is a measure under way: its contenders, and the sheets in which a
// failure is noted.
type contest struct {
	cfg        Config
	name       string
	sheets     []*table.Sheet
	contenders []contender
}

// begin starts those peers that want. The caller must call end.
func begin(ctx context.Context, cfg Config, name string, setup peers.Setup, want func(peers.Peer) bool, sheets ...*table.Sheet) *contest {
	c := &contest{cfg: cfg, name: name, sheets: sheets}
	for _, peer := range cfg.Peers {
		if !want(peer) {
			continue
		}
		for _, sheet := range sheets {
			sheet.Row(peer.Name)
		}
		if missing := peer.Missing(); missing != "" {
			c.fail(peer, fmt.Errorf("%s is not installed", missing))
			continue
		}
		line, err := peer.Start(ctx, cfg.Lab, setup)
		if err != nil {
			c.fail(peer, err)
			continue
		}
		c.contenders = append(c.contenders, contender{peer, line})
	}
	return c
}

// end stops all peers.
func (c *contest) end() {
	for _, contender := range c.contenders {
		contender.line.Stop()
	}
}

// fail notes that a peer does not go on.
func (c *contest) fail(peer peers.Peer, err error) {
	c.cfg.Log("%s: %s failed: %v", c.name, peer.Name, err)
	for _, sheet := range c.sheets {
		sheet.Fail(peer.Name, err)
	}
}

// rounds runs step for all contenders, the given number of times.
func (c *contest) rounds(ctx context.Context, count int, step func(ctx context.Context, x contender, round int) error) error {
	for round := range count {
		what := fmt.Sprintf("round %d of %d", round+1, count)
		if err := c.turn(ctx, round, what, func(ctx context.Context, x contender) error { return step(ctx, x, round) }); err != nil {
			return err
		}
	}
	return nil
}

// turn runs step once for all contenders that have not failed. Each round
// begins with another one, so that what comes after what does not decide. A
// failure of step is the peer's, unless ctx has ended.
func (c *contest) turn(ctx context.Context, round int, what string, step func(ctx context.Context, x contender) error) error {
	for i := range c.contenders {
		x := c.contenders[(i+round)%len(c.contenders)]
		if c.sheets[0].Failed(x.peer.Name) {
			continue
		}
		c.cfg.Log("%s: %s: %s", c.name, what, x.peer.Name)
		limited, cancel := context.WithTimeout(ctx, stepWait)
		err := step(limited, x)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			c.fail(x.peer, fmt.Errorf("%s: %w", what, err))
		}
	}
	return nil
}

// isRaw and isSSH are for begin.
func isRaw(p peers.Peer) bool { return p.Raw }
func isSSH(p peers.Peer) bool { return p.SSH }

// errShort says that bytes are missing.
var errShort = errors.New("what arrived is not what was sent")

// speed is MiB/s.
func speed(bytes int64, took time.Duration) float64 {
	return float64(bytes) / mib / took.Seconds()
}

// perGiB is seconds for each GiB.
func perGiB(used time.Duration, bytes int64) float64 {
	return used.Seconds() / (float64(bytes) / gib)
}
