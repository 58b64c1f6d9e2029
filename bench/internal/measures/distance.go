//go:build linux

package measures

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"example.com/converge/bench/carrier"
	"example.com/converge/bench/internal/child"
	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/stats"
	"example.com/converge/bench/internal/table"
)

// Columns of the line with a delay.
const (
	distUp      = "raw up"
	distDown    = "raw down"
	distCatUp   = "ssh cat up"
	distCatDown = "ssh cat down"
	distShareUp = "up, share of the window"
	distShare   = "down, share of the window"
)

// window is OpenSSH's, and x/crypto's, for one channel, in bytes.
const window = 2 << 20

// distance measures throughput where the client is far away.
func distance(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	trip, err := roundTrip(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("cannot make a line with a delay: %w", err)
	}
	sheet := table.New("distance", fmt.Sprintf("At a round trip of %v: MiB/s", 2*cfg.Delay),
		fmt.Sprintf("Half of the delay is between the client and the relay, half between the relay and the far end, as it is for a rendezvous; where there is no relay all of it is in one place. A byte took %s ms to go and come back on such a line by itself, for which SSH's window of 2 MiB allows %s MiB/s.",
			table.Number(trip.Seconds()*1e3), table.Number(allowed(trip))), peers.Direct,
		distUp, distDown, distCatUp, distCatDown, distShareUp, distShare)
	rounds := min(cfg.Rounds, 3) // they take long, and differ little
	for _, part := range []struct {
		end  peers.End
		want func(peers.Peer) bool
		step func(ctx context.Context, cfg Config, x contender, front string, sheet *table.Sheet) error
	}{
		{peers.SSH, isSSH, distanceSSH(trip)}, {peers.Raw, isRaw, distanceRaw},
	} {
		contest := begin(ctx, cfg, "distance", peers.Setup{End: part.end, IDs: 1, Delay: cfg.Delay / 2}, part.want, sheet)
		err := contest.rounds(ctx, rounds, func(ctx context.Context, x contender, _ int) error {
			each := cfg.Delay / 2
			if len(x.line.Relays) == 0 {
				each = cfg.Delay
			}
			p, front, err := cfg.Lab.StartChild(ctx, "delay", x.line.Front, each.String())
			if err != nil {
				return err
			}
			defer p.Stop()
			return part.step(ctx, cfg, x, front, sheet)
		})
		contest.end()
		if err != nil {
			return nil, err
		}
	}
	return []*table.Sheet{sheet}, nil
}

// allowed is the MiB/s at which SSH's window is used up in a round trip.
func allowed(trip time.Duration) float64 { return window / mib / trip.Seconds() }

// roundTrip measures what a line with a delay really takes: timers and a busy
// machine add to it.
func roundTrip(ctx context.Context, cfg Config) (time.Duration, error) {
	const samples = 20
	far, address, err := cfg.Lab.StartChild(ctx, "far", string(carrier.TCP), "127.0.0.1:0", "0", "1")
	if err != nil {
		return 0, err
	}
	defer far.Stop()
	line, front, err := cfg.Lab.StartChild(ctx, "delay", address, cfg.Delay.String())
	if err != nil {
		return 0, err
	}
	defer line.Stop()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", front)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var times []float64
	for range samples {
		start := time.Now()
		if err := child.Upload(conn, 0); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(start)))
	}
	return time.Duration(stats.Quantile(times, 0.5)), nil
}

// distanceRaw moves bytes with no SSH around.
func distanceRaw(ctx context.Context, cfg Config, x contender, front string, sheet *table.Sheet) error {
	for _, run := range []struct {
		column string
		move   func(net.Conn, int64) error
	}{{distUp, child.Upload}, {distDown, child.Download}} {
		_, took, err := relayOnce(ctx, x.line, front, 1, cfg.FarSize, run.move)
		if err != nil {
			return fmt.Errorf("%s: %w", run.column, err)
		}
		// A round trip passes before the last word of it is here.
		sheet.Add(x.peer.Name, run.column, speed(cfg.FarSize, took-2*cfg.Delay))
	}
	return nil
}

// distanceSSH pipes bytes through cat, each way, on a session that is open.
func distanceSSH(trip time.Duration) func(ctx context.Context, cfg Config, x contender, front string, sheet *table.Sheet) error {
	return func(ctx context.Context, cfg Config, x contender, front string, sheet *table.Sheet) error {
		down, err := catDown(ctx, cfg, x.line.SSH("ssh", front, sameKex))
		if err != nil {
			return fmt.Errorf("%s: %w", distCatDown, err)
		}
		sheet.Add(x.peer.Name, distCatDown, down)
		sheet.Add(x.peer.Name, distShare, down/allowed(trip))
		up, err := catUp(ctx, cfg, x.line.SSH("ssh", front, sameKex))
		if err != nil {
			return fmt.Errorf("%s: %w", distCatUp, err)
		}
		sheet.Add(x.peer.Name, distCatUp, up)
		sheet.Add(x.peer.Name, distShareUp, up/allowed(trip))
		return nil
	}
}

// catDown times what comes after the first byte.
func catDown(ctx context.Context, cfg Config, ssh []string) (float64, error) {
	s, err := open(ctx, append(ssh, fmt.Sprintf("printf R; head -c %d /dev/zero", cfg.FarSize)))
	if err != nil {
		return 0, err
	}
	defer s.kill()
	buf := make([]byte, 64<<10)
	first, err := s.out.Read(buf)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	rest, err := io.CopyN(io.Discard, s.out, cfg.FarSize-int64(first))
	if err != nil {
		return 0, fmt.Errorf("%w: %d bytes of %d: %w", errShort, int64(first)+rest, cfg.FarSize, err)
	}
	return speed(rest, time.Since(start)), nil
}

// catUp times from the word that the remote side is ready to the word that it
// has everything, less the round trip between the two.
func catUp(ctx context.Context, cfg Config, ssh []string) (float64, error) {
	s, err := open(ctx, append(ssh, fmt.Sprintf("printf R; head -c %d >/dev/null; printf D", cfg.FarSize)))
	if err != nil {
		return 0, err
	}
	defer s.kill()
	start := time.Now()
	zero := make([]byte, 64<<10)
	for left := cfg.FarSize; left > 0; {
		n, err := s.in.Write(zero[:min(left, int64(len(zero)))])
		if err != nil {
			return 0, err
		}
		left -= int64(n)
	}
	if err := s.expect('D'); err != nil {
		return 0, err
	}
	return speed(cfg.FarSize, time.Since(start)-2*cfg.Delay), nil
}
