//go:build linux

package measures

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/proc"
	"example.com/converge/bench/internal/stats"
	"example.com/converge/bench/internal/table"
)

// session is a stock client that the harness talks to.
type session struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.ReadCloser
	diag strings.Builder
}

// open starts a client and waits until the remote side says R.
func open(ctx context.Context, args []string) (*session, error) {
	s := &session{cmd: exec.CommandContext(ctx, args[0], args[1:]...)}
	// ssh's ProxyCommand is in its group, and goes with it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Cancel = func() error { return syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) }
	s.cmd.WaitDelay = time.Second
	s.cmd.Stderr = &s.diag
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if s.out, err = s.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.expect('R'); err != nil {
		err = fmt.Errorf("%w: %s", err, strings.Join(strings.Fields(s.diag.String()), " "))
		s.kill()
		return nil, err
	}
	return s, nil
}

// expect reads up to and including a byte.
func (s *session) expect(want byte) error {
	var b [1]byte
	for b[0] != want {
		if _, err := s.out.Read(b[:]); err != nil {
			return fmt.Errorf("the session ended early: %w", err)
		}
	}
	return nil
}

// kill ends the client, whatever it is doing, and waits for it.
func (s *session) kill() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.in.Close()
	_ = s.cmd.Wait()
}

// echo measures how long a key takes to come back from a terminal.
func echo(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	const p50, p99 = "p50", "p99"
	sheet := table.New("echo", "Key echo: microseconds",
		fmt.Sprintf("From the key to its echo by cat on a raw terminal, one at a time; %d keys a round, after as many to warm up.", cfg.Keys),
		peers.Direct, p50, p99)
	contest := begin(ctx, cfg, "echo", peers.Setup{End: peers.SSH}, isSSH, sheet)
	defer contest.end()
	err := contest.rounds(ctx, cfg.Rounds, func(ctx context.Context, x contender, _ int) error {
		args := x.line.SSH("ssh", x.line.Front, sameKex)
		args = append(args[:1:1], append([]string{"-tt"}, args[1:]...)...)
		s, err := open(ctx, append(args, "stty raw -echo && printf R && exec cat"))
		if err != nil {
			return err
		}
		defer s.kill()
		var times []float64
		for i := range 2 * cfg.Keys {
			start := time.Now()
			if _, err := s.in.Write([]byte{'k'}); err != nil {
				return err
			}
			if err := s.expect('k'); err != nil {
				return err
			}
			if i >= cfg.Keys {
				times = append(times, float64(time.Since(start).Nanoseconds())/1e3)
			}
		}
		sheet.Add(x.peer.Name, p50, stats.Quantile(times, 0.5))
		sheet.Add(x.peer.Name, p99, stats.Quantile(times, 0.99))
		return nil
	})
	return []*table.Sheet{sheet}, err
}

// login measures ssh true.
func login(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	const wall, used = "ms", "CPU ms of the whole chain"
	sheet := table.New("login", "`ssh true`",
		fmt.Sprintf("The whole command, with curve25519 everywhere; each sample is the median of %d.", cfg.Logins),
		peers.Direct, wall, used)
	contest := begin(ctx, cfg, "login", peers.Setup{End: peers.SSH}, isSSH, sheet)
	defer contest.end()
	err := contest.rounds(ctx, cfg.Rounds, func(ctx context.Context, x contender, _ int) error {
		var walls, cpus []float64
		for range cfg.Logins {
			calm := x.line.Calm()
			before, err := x.line.CPU()
			if err != nil {
				return err
			}
			usage, err := proc.Run(ctx, proc.Command{Args: append(x.line.SSH("ssh", x.line.Front, sameKex), "true")})
			if err != nil {
				return err
			}
			calm(ctx)
			after, err := x.line.CPU()
			if err != nil {
				return err
			}
			walls = append(walls, usage.Wall.Seconds()*1e3)
			cpus = append(cpus, (usage.CPU+after-before).Seconds()*1e3)
		}
		sheet.Add(x.peer.Name, wall, stats.Quantile(walls, 0.5))
		sheet.Add(x.peer.Name, used, stats.Quantile(cpus, 0.5))
		return nil
	})
	return []*table.Sheet{sheet}, err
}

// start measures how long it takes from starting a program to being greeted
// through it.
func start(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	const column = "ms"
	sheet := table.New("start", "From start to reachable: milliseconds",
		"From the start of the agent, or of sshd, to the first byte of SSH that a client gets from it.", peers.Direct, column)
	want := func(p peers.Peer) bool { return p.Name == peers.Converge || p.Name == peers.Direct }
	// The server alone, and no far end; of OpenSSH nothing is needed.
	contest := &contest{cfg: cfg, name: "start", sheets: []*table.Sheet{sheet}}
	defer contest.end()
	for _, peer := range cfg.Peers {
		if !want(peer) {
			continue
		}
		line := new(peers.Line)
		if peer.Name == peers.Converge {
			var err error
			if line, err = peer.Start(ctx, cfg.Lab, peers.Setup{End: peers.Raw}); err != nil {
				return nil, err
			}
		}
		contest.contenders = append(contest.contenders, contender{peer, line})
	}
	err := contest.rounds(ctx, cfg.Rounds, func(ctx context.Context, x contender, _ int) error {
		var p *proc.Process
		front := x.line.Front
		var err error
		if x.peer.Name == peers.Converge {
			p, err = cfg.Lab.StartAgent(ctx, front)
		} else {
			p, front, err = cfg.Lab.StartSSHD(ctx)
		}
		if err != nil {
			return err
		}
		defer p.Stop()
		conn, err := x.line.Dial(ctx, front, 0)
		if err != nil {
			return err
		}
		defer conn.Close()
		greeting := make([]byte, len("SSH-"))
		if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "SSH-" {
			return fmt.Errorf("no SSH server answers: %q, %w", greeting, err)
		}
		sheet.Add(x.peer.Name, column, time.Since(p.Started).Seconds()*1e3)
		return nil
	})
	return []*table.Sheet{sheet}, err
}
