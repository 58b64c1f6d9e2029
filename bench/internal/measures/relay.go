//go:build linux

package measures

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/converge/bench/internal/child"
	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/table"
)

// relay measures what the processes in the middle cost, with no SSH around.
func relay(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	up, down := "up, 1 stream", "down, 1 stream"
	manyUp, manyDown := fmt.Sprintf("up, %d streams", cfg.Streams), fmt.Sprintf("down, %d streams", cfg.Streams)
	costs := table.New("relay-cpu", "Relay alone: CPU seconds per GiB",
		"Of the processes in the middle. Through nginx and haproxy bytes go twice, once with the client and once with the agent; the server behind them is counted.", peers.TCPCopy,
		up, down, manyUp, manyDown)
	speeds := table.New("relay-speed", "Relay alone: MiB/s",
		"In the same runs, with both ends on the same machine.", peers.TCPCopy, up, down, manyUp, manyDown)
	contest := begin(ctx, cfg, "relay", peers.Setup{End: peers.Raw, IDs: 1}, isRaw, costs, speeds)
	defer contest.end()
	runs := []struct {
		column  string
		streams int
		move    func(net.Conn, int64) error
	}{
		{up, 1, child.Upload}, {down, 1, child.Download},
		{manyUp, cfg.Streams, child.Upload}, {manyDown, cfg.Streams, child.Download},
	}
	for round := range cfg.Rounds {
		for _, run := range runs {
			what := fmt.Sprintf("round %d of %d, %s", round+1, cfg.Rounds, run.column)
			err := contest.turn(ctx, round, what, func(ctx context.Context, x contender) error {
				used, took, err := relayOnce(ctx, x.line, x.line.Front, run.streams, cfg.Size, run.move)
				if err != nil {
					return err
				}
				costs.Add(x.peer.Name, run.column, perGiB(used, cfg.Size))
				speeds.Add(x.peer.Name, run.column, speed(cfg.Size, took))
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return []*table.Sheet{costs, speeds}, nil
}

// relayOnce moves size bytes on so many streams together. Opening them is not
// part of it.
func relayOnce(ctx context.Context, line *peers.Line, front string, streams int, size int64, move func(net.Conn, int64) error) (used, took time.Duration, err error) {
	conns := make([]net.Conn, 0, streams)
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	for range streams {
		conn, err := line.Dial(ctx, front, 0)
		if err != nil {
			return 0, 0, err
		}
		conns = append(conns, conn)
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		// The far end is there, and everybody's buffers have been used.
		if err := child.Upload(conn, 1); err != nil {
			return 0, 0, err
		}
	}
	before, err := line.RelayCPU()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	var group errgroup.Group
	for _, conn := range conns {
		group.Go(func() error { return move(conn, size/int64(streams)) })
	}
	if err := group.Wait(); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	after, err := line.RelayCPU()
	return after - before, took, err
}
