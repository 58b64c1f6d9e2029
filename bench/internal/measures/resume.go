//go:build linux

package measures

import (
	"context"
	"fmt"
	"io"
	"time"

	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/proc"
	"example.com/converge/bench/internal/table"
)

// How long the server is away.
const (
	shortAway = 100 * time.Millisecond
	longAway  = time.Second
)

func pauseColumn(away time.Duration) string { return "away for " + away.String() }

// resume measures what sessions that survive the relay cost, and how soon they
// go on.
func resume(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	pauses, err := resumePause(ctx, cfg)
	if err != nil {
		return nil, err
	}
	memory, err := endMemory(ctx, cfg)
	return append(pauses, memory...), err
}

// resumePause takes the time from when a server that was killed serves again
// to the echo of a key that was typed while it was away.
func resumePause(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	sheet := table.New("resume-pause", "Pause after the server was killed: milliseconds",
		"From when another server serves at its address to the echo of a key that was typed meanwhile.", "",
		pauseColumn(shortAway), pauseColumn(longAway))
	want := func(p peers.Peer) bool { return p.Name == peers.Converge }
	contest := begin(ctx, cfg, "resume", peers.Setup{End: peers.SSH}, want, sheet)
	defer contest.end()
	err := contest.rounds(ctx, cfg.Rounds, func(ctx context.Context, x contender, _ int) error {
		s, err := open(ctx, append(x.line.SSH("ssh", x.line.Front, sameKex), "printf R && exec cat"))
		if err != nil {
			return err
		}
		defer s.kill()
		for _, away := range []time.Duration{shortAway, longAway} {
			if err := lapse(ctx, cfg.Rest); err != nil {
				return err
			}
			x.line.Kill()
			if _, err := s.in.Write([]byte{'k'}); err != nil {
				return err
			}
			if err := lapse(ctx, away); err != nil {
				return err
			}
			if err := x.line.Revive(ctx); err != nil {
				return err
			}
			back := time.Now()
			if err := s.expect('k'); err != nil {
				return err
			}
			sheet.Add(x.peer.Name, pauseColumn(away), time.Since(back).Seconds()*1e3)
		}
		return nil
	})
	return []*table.Sheet{sheet}, err
}

// lapse lets time pass, which is what is being measured here.
func lapse(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endMemory takes what a session costs at its two ends, with resumption and
// without: after a byte, and after a transfer, which fills what it may.
func endMemory(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	const agentIdle, proxyIdle, agentUsed, proxyUsed = "agent, unused", "wsproxy, unused", "agent, used", "wsproxy, used"
	each := min(cfg.Size/int64(cfg.Streams), 16*mib)
	sheet := table.New("memory-ends", "Memory per session at the ends: KiB",
		fmt.Sprintf("Resident memory of the agent alone above what it needs with none, for each of %d sessions, and of a wsproxy, which serves one; when they are open, and idle again after %.3g MiB each way.", cfg.Streams, float64(each)/mib),
		peers.NoResume, agentIdle, proxyIdle, agentUsed, proxyUsed)
	want := func(p peers.Peer) bool { return p.Name == peers.Converge || p.Name == peers.NoResume }
	contest := begin(ctx, cfg, "resume", peers.Setup{End: peers.SSH}, want, sheet)
	defer contest.end()
	err := contest.rounds(ctx, 1, func(ctx context.Context, x contender, _ int) error {
		agent := x.line.Ends[0].Pid()
		base, err := proc.Settled(ctx, func() (int64, error) { return proc.Pss(agent) })
		if err != nil {
			return err
		}
		var sessions []*session
		defer func() {
			for _, s := range sessions {
				s.kill()
			}
		}()
		for range cfg.Streams {
			s, err := open(ctx, append(x.line.SSH("ssh", x.line.Front, sameKex), "printf R && exec cat"))
			if err != nil {
				return err
			}
			sessions = append(sessions, s)
		}
		take := func(agentColumn, proxyColumn string) error {
			count := int64(len(sessions))
			now, err := proc.Settled(ctx, func() (int64, error) { return proc.Pss(agent) })
			if err != nil {
				return err
			}
			sheet.Add(x.peer.Name, agentColumn, float64(now-base)/1024/float64(count))
			proxies, err := proc.Settled(ctx, func() (sum int64, err error) {
				for _, s := range sessions {
					pid, err := proc.Child(s.cmd.Process.Pid, "wsproxy")
					if err != nil {
						return 0, err
					}
					used, err := proc.Pss(pid)
					if err != nil {
						return 0, err
					}
					sum += used
				}
				return sum, nil
			})
			if err != nil {
				return err
			}
			sheet.Add(x.peer.Name, proxyColumn, float64(proxies)/1024/float64(count))
			return nil
		}
		if err := take(agentIdle, proxyIdle); err != nil {
			return err
		}
		for _, s := range sessions {
			if err := s.thereAndBack(each); err != nil {
				return err
			}
		}
		return take(agentUsed, proxyUsed)
	})
	return []*table.Sheet{sheet}, err
}

// thereAndBack sends bytes to cat and takes as many back.
func (s *session) thereAndBack(size int64) error {
	sent := make(chan error, 1)
	go func() {
		block := make([]byte, 64<<10)
		left := size
		for left > 0 {
			n, err := s.in.Write(block[:min(left, int64(len(block)))])
			if err != nil {
				break
			}
			left -= int64(n)
		}
		if left > 0 {
			sent <- errShort
			return
		}
		sent <- nil
	}()
	_, err := io.CopyN(io.Discard, s.out, size)
	if err != nil {
		s.kill() // the sender would wait
		<-sent
		return err
	}
	return <-sent
}
