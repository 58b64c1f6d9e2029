//go:build linux

package measures

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"example.com/converge/bench/internal/child"
	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/proc"
	"example.com/converge/bench/internal/table"
)

const (
	// clientsPerAgent spreads sessions over far ends: an agent takes 128.
	clientsPerAgent = 64
	// opening is how many connections are being opened at a time.
	opening = 32
)

// memory measures what idle connections cost the processes in the middle.
func memory(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	counts, err := affordable(cfg, 0)
	if err != nil {
		return nil, err
	}
	if len(counts) == 0 {
		return nil, errors.New("the limit of open files is too low for any of the numbers of connections: raise it (ulimit -n) or give smaller ones")
	}
	agents := memorySheet("memory-agents", "Memory per idle agent: KiB", counts)
	sessions := memorySheet("memory-sessions", "Memory per live idle session: KiB", counts)
	for _, run := range []struct {
		sheet *table.Sheet
		want  func(peers.Peer) bool
		take  func(ctx context.Context, cfg Config, peer peers.Peer, counts []int, sheet *table.Sheet) error
	}{
		{agents, func(p peers.Peer) bool { return p.Agents }, idleAgents},
		{sessions, isRaw, idleSessions},
	} {
		// One round: each peer starts afresh, and memory does not jitter as
		// time does.
		contest := &contest{cfg: cfg, name: run.sheet.Key, sheets: []*table.Sheet{run.sheet}}
		for _, peer := range cfg.Peers {
			if missing := peer.Missing(); run.want(peer) && missing != "" {
				contest.fail(peer, fmt.Errorf("%s is not installed", missing))
			} else if run.want(peer) {
				contest.contenders = append(contest.contenders, contender{peer: peer})
			}
		}
		err := contest.rounds(ctx, 1, func(ctx context.Context, x contender, _ int) error {
			counts, err := affordable(cfg, x.peer.Files)
			if err != nil || len(counts) == 0 {
				return err
			}
			return run.take(ctx, cfg, x.peer, counts, run.sheet)
		})
		if err != nil {
			return nil, err
		}
	}
	return []*table.Sheet{agents, sessions}, nil
}

// Columns of memory.
const (
	slope  = "each further one"
	kernel = "kernel, whole machine"
)

func at(count int) string { return fmt.Sprintf("at %d", count) }

func memorySheet(key, title string, counts []int) *table.Sheet {
	var columns []string
	for _, count := range counts {
		columns = append(columns, at(count))
	}
	return table.New(key, title,
		"Resident memory of the processes in the middle, above what they need with none. The kernel's is of all sockets on this machine, those of both ends included.",
		"", append(columns, slope, kernel)...)
}

// affordable leaves out counts for which the relay would need more files than
// it may open, at so many for each session; 0 is two, its connections.
func affordable(cfg Config, files int) ([]int, error) {
	if files == 0 {
		files = 2
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	counts := slices.Clone(cfg.Connections)
	slices.Sort(counts)
	return slices.DeleteFunc(slices.Compact(counts), func(count int) bool {
		if count <= 1<<30 && uint64(files*count+1000) <= limit.Max {
			return false
		}
		cfg.Log("memory: %d sessions of %d files are left out: the limit of open files is %d", count, files, limit.Max)
		return true
	}), nil
}

// gauge takes the memory of a line as connections are added.
type gauge struct {
	line       *peers.Line
	sheet      *table.Sheet
	row        string
	base, kern int64 // with none
	count      int   // of the sample before
	last       int64
}

func newGauge(ctx context.Context, line *peers.Line, sheet *table.Sheet, row string) (*gauge, error) {
	g := &gauge{line: line, sheet: sheet, row: row}
	var err error
	if g.base, err = proc.Settled(ctx, line.RelayRSS); err != nil {
		return nil, err
	}
	g.last = g.base
	g.kern, err = proc.Kernel()
	return g, err
}

// take adds the sample with count connections, to the column of that name.
func (g *gauge) take(ctx context.Context, count int, last bool) error {
	now, err := proc.Settled(ctx, g.line.RelayRSS)
	if err != nil {
		return err
	}
	g.sheet.Add(g.row, at(count), float64(now-g.base)/1024/float64(count))
	if last {
		if g.count > 0 {
			g.sheet.Add(g.row, slope, float64(now-g.last)/1024/float64(count-g.count))
		}
		kern, err := proc.Kernel()
		if err != nil {
			return err
		}
		g.sheet.Add(g.row, kernel, float64(kern-g.kern)/1024/float64(count))
	}
	g.count, g.last = count, now
	return nil
}

// idleAgents registers far ends and leaves them alone.
func idleAgents(ctx context.Context, cfg Config, peer peers.Peer, counts []int, sheet *table.Sheet) error {
	line, err := peer.Start(ctx, cfg.Lab, peers.Setup{End: peers.Raw})
	if err != nil {
		return err
	}
	defer line.Stop()
	g, err := newGauge(ctx, line, sheet, peer.Name)
	if err != nil {
		return err
	}
	for i, count := range counts {
		if err := line.FarEnds(ctx, g.count, count-g.count); err != nil {
			return err
		}
		if err := g.take(ctx, count, i == len(counts)-1); err != nil {
			return err
		}
	}
	return nil
}

// idleSessions opens sessions, uses each for a byte, and leaves them alone.
func idleSessions(ctx context.Context, cfg Config, peer peers.Peer, counts []int, sheet *table.Sheet) error {
	row := peer.Name
	if peer.Most > 0 && peer.Most < slices.Max(counts) {
		// A column of its own would be empty everywhere else.
		row = fmt.Sprintf("%s (with %d)", row, peer.Most)
		sheet.Row(row)
	}
	line, err := peer.Start(ctx, cfg.Lab, peers.Setup{End: peers.Raw, IDs: slices.Max(counts)/clientsPerAgent + 1})
	if err != nil {
		return err
	}
	defer line.Stop()
	g, err := newGauge(ctx, line, sheet, row)
	if err != nil {
		return err
	}
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	for i, count := range counts {
		want := count
		if peer.Most > 0 {
			want = min(want, peer.Most)
		}
		more, err := openSessions(ctx, line, len(conns), want)
		conns = append(conns, more...)
		if err != nil {
			return err
		}
		if want < count {
			return g.few(ctx, want, count)
		}
		if err := g.take(ctx, count, i == len(counts)-1); err != nil {
			return err
		}
	}
	return nil
}

// few adds a sample with fewer connections than the column says; its row does.
func (g *gauge) few(ctx context.Context, have, column int) error {
	now, err := proc.Settled(ctx, g.line.RelayRSS)
	if err != nil {
		return err
	}
	g.sheet.Add(g.row, at(column), float64(now-g.base)/1024/float64(have))
	return nil
}

// openSessions opens the sessions from first to count.
func openSessions(ctx context.Context, line *peers.Line, first, count int) ([]net.Conn, error) {
	conns := make([]net.Conn, count-first)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(opening)
	for i := range conns {
		group.Go(func() error {
			conn, err := line.Dial(ctx, line.Front, first+i)
			if err != nil {
				return err
			}
			conns[i] = conn
			return child.Upload(conn, 1)
		})
	}
	err := group.Wait()
	return slices.DeleteFunc(conns, func(conn net.Conn) bool { return conn == nil }), err
}
