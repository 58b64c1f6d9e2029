//go:build linux

package peers

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"example.com/converge/bench/carrier"
	"example.com/converge/bench/internal/child"
	"example.com/converge/bench/internal/proc"
)

// End is what stands at the far end of a line.
type End int

// The far ends.
const (
	// Raw takes and gives bytes, for the cost of the relay alone.
	Raw End = iota
	// SSH is an SSH server, for what a user sees.
	SSH
)

// Names of peers that measures compare with.
const (
	Converge = "converge"
	NoResume = "no-resume"
	Direct   = "openssh"
	TCPCopy  = "tcp-copy"
)

// Peer is something to compare.
type Peer struct {
	// Name is for tables and options.
	Name string
	// Path says what bytes go through, from the client on.
	Path string
	// Raw and SSH tell which far ends it can have.
	Raw, SSH bool
	// Agents tells that far ends register with it, so that an idle one costs
	// it something.
	Agents bool
	// Ciphers asks for each cipher by name too.
	Ciphers bool
	// Most is how many connections it can bear; 0 is any number.
	Most int
	// Files is how many files the process that opens most of them has open for
	// each session; 0 is 2, its two connections.
	Files int
	// Needs are programs that must be installed.
	Needs []string

	start func(ctx context.Context, lab *Lab, line *Line, setup Setup) error
}

// Setup says how to set a peer up.
type Setup struct {
	// End is what stands at the far end.
	End End
	// IDs is how many raw far ends register, where they do.
	IDs int
	// Delay is how long every byte takes, each way, between the relay and the
	// far end; 0 is a line without delay. A peer without a relay has none.
	Delay time.Duration
}

// All lists the peers in the order of the tables.
func All() []Peer {
	return []Peer{
		{Name: Direct, Path: "ssh → sshd", SSH: true, Ciphers: true, Needs: []string{"sshd"}, start: startDirect},
		{Name: "agent", Path: "ssh → the agent's SSH server on a TCP port", SSH: true, Ciphers: true, start: startAgentAlone},
		{Name: TCPCopy, Path: "ssh → copy, 32 KiB buffer → sshd", Raw: true, SSH: true, Needs: []string{"sshd"}, start: tcpRelay(child.TCPCopy)},
		{Name: "splice", Path: "ssh → splice(2) → sshd", Raw: true, SSH: true, Files: 6, Needs: []string{"sshd"}, start: tcpRelay(child.Splice)},
		{Name: Converge, Path: "ssh → wsproxy → server → agent", Raw: true, SSH: true, Agents: true, Ciphers: true, start: startConverge},
		{Name: NoResume, Path: "ssh → wsproxy --resume-window 0 → server → agent", SSH: true, start: startNoResume},
		{Name: "nginx", Path: "ssh → wsproxy → nginx → server → agent", Raw: true, SSH: true, Needs: []string{"nginx"}, start: behind(startNginx)},
		{Name: "haproxy", Path: "ssh → wsproxy → haproxy → server → agent", Raw: true, SSH: true, Needs: []string{"haproxy"}, start: behind(startHAProxy)},
		{Name: "nhooyr", Path: "ssh → wsproxy → nhooyr NetConn and copy → agent's SSH server", Raw: true, SSH: true, Agents: true, start: hubRelay(carrier.Nhooyr)},
		{Name: "yamux", Path: "ssh → wsproxy → yamux on the agent's websocket → agent's SSH server", Raw: true, SSH: true, Agents: true, start: hubRelay(carrier.Yamux)},
		{Name: "websockify", Path: "ssh → wsproxy → websockify → sshd", Raw: true, SSH: true, Most: 100, Needs: []string{"websockify", "sshd"}, start: startWebsockify},
		{Name: "ssh-R", Path: "ssh → ssh -W → relaying sshd → ssh -R → sshd", SSH: true, Needs: []string{"sshd"}, start: startReverse},
	}
}

// Missing names a program that the peer needs and this machine lacks, or "".
func (p Peer) Missing() string {
	for _, name := range p.Needs {
		if _, err := exec.LookPath(name); err != nil {
			return name
		}
	}
	return ""
}

// Select returns the peers of the given names in the order of All; no names
// are all.
func Select(names []string) ([]Peer, error) {
	all := All()
	if len(names) == 0 {
		return all, nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(p Peer) bool { return p.Name == name }) {
			return nil, fmt.Errorf("no peer is called %q", name)
		}
	}
	return slices.DeleteFunc(all, func(p Peer) bool { return !slices.Contains(names, p.Name) }), nil
}

// Start sets the peer up. The caller must Stop the line.
func (p Peer) Start(ctx context.Context, lab *Lab, setup Setup) (*Line, error) {
	line := &Line{lab: lab, ids: setup.IDs, delay: setup.Delay, user: lab.user}
	if err := p.start(ctx, lab, line, setup); err != nil {
		line.Stop()
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return line, nil
}

// relay adds a process in the middle to the line.
func (l *Line) relay(p *proc.Process, address string, err error) error {
	if err != nil {
		return err
	}
	l.Relays = append(l.Relays, p)
	l.Front = address
	return nil
}

// end adds a process of the far end and returns its address.
func (l *Line) end(p *proc.Process, address string, err error) (string, error) {
	if err != nil {
		return "", err
	}
	l.Ends = append(l.Ends, p)
	return address, nil
}

// speaksWebsocket makes clients come by websocket, ssh through wsproxy. Far
// ends register by kind; "" is for those that listen. To others than Converge
// wsproxy offers no subprotocol, which websockify would refuse.
func (l *Line) speaksWebsocket(kind carrier.Kind) {
	l.websocket, l.carrier = true, kind
	var options []string
	if kind != carrier.Converge {
		options = []string{"--resume-window", "0"}
	}
	l.proxy = func(address string) string { return l.lab.wsproxy(address, options...) }
}

// far is the address by which the relay and the far end reach each other: the
// one given, or a delay's in front of it.
func (l *Line) far(ctx context.Context, address string) (string, error) {
	if l.delay == 0 {
		return address, nil
	}
	p, address, err := l.lab.StartChild(ctx, "delay", address, l.delay.String())
	if err != nil {
		return "", err
	}
	l.delays = append(l.delays, p)
	return address, nil
}

func startDirect(ctx context.Context, lab *Lab, line *Line, _ Setup) (err error) {
	line.Front, err = line.end(lab.StartSSHD(ctx))
	return err
}

func startAgentAlone(ctx context.Context, lab *Lab, line *Line, _ Setup) (err error) {
	line.user = "abc"
	line.Front, err = line.end(lab.startAlone(ctx, string(carrier.TCP), "127.0.0.1:0"))
	return err
}

// listener starts the far end of relays that dial it, sshd or the raw one, and
// returns its address for them.
func (l *Line) listener(ctx context.Context, lab *Lab, end End) (string, error) {
	start := func() (*proc.Process, string, error) { return lab.StartSSHD(ctx) }
	if end == Raw {
		start = func() (*proc.Process, string, error) {
			return lab.startFar(ctx, string(carrier.TCP), "127.0.0.1:0", 0, 1)
		}
	}
	address, err := l.end(start())
	if err != nil {
		return "", err
	}
	return l.far(ctx, address)
}

func tcpRelay(kind string) func(context.Context, *Lab, *Line, Setup) error {
	return func(ctx context.Context, lab *Lab, line *Line, setup Setup) error {
		far, err := line.listener(ctx, lab, setup.End)
		if err != nil {
			return err
		}
		return line.relay(lab.StartChild(ctx, "relay", kind, far))
	}
}

func startConverge(ctx context.Context, lab *Lab, line *Line, setup Setup) error {
	if err := line.relay(lab.startServer(ctx)); err != nil {
		return err
	}
	return line.converge(ctx, setup)
}

// startNoResume is Converge whose sessions end with their connection.
func startNoResume(ctx context.Context, lab *Lab, line *Line, setup Setup) error {
	if err := startConverge(ctx, lab, line, setup); err != nil {
		return err
	}
	line.proxy = func(address string) string { return lab.wsproxy(address, "--resume-window", "0") }
	return nil
}

// behind puts a reverse proxy before Converge's server: the agent and the
// client both come through it, as they would.
func behind(start func(ctx context.Context, lab *Lab, server string) (*proc.Process, string, error)) func(context.Context, *Lab, *Line, Setup) error {
	return func(ctx context.Context, lab *Lab, line *Line, setup Setup) error {
		if err := line.relay(lab.startServer(ctx)); err != nil {
			return err
		}
		if err := line.relay(start(ctx, lab, line.Front)); err != nil {
			return err
		}
		return line.converge(ctx, setup)
	}
}

// converge puts an agent with these options, or raw far ends, behind the relays
// that are there.
func (l *Line) converge(ctx context.Context, setup Setup, options ...string) error {
	l.speaksWebsocket(carrier.Converge)
	if setup.End == Raw {
		return l.FarEnds(ctx, 0, setup.IDs)
	}
	l.user = "abc"
	address, err := l.far(ctx, l.Front)
	if err != nil {
		return err
	}
	agent, err := l.lab.StartAgent(ctx, address, options...)
	_, err = l.end(agent, "", err)
	return err
}

func hubRelay(kind carrier.Kind) func(context.Context, *Lab, *Line, Setup) error {
	return func(ctx context.Context, lab *Lab, line *Line, setup Setup) error {
		line.speaksWebsocket(kind)
		if err := line.relay(lab.StartChild(ctx, "relay", string(kind), "-")); err != nil {
			return err
		}
		if setup.End == Raw {
			return line.FarEnds(ctx, 0, setup.IDs)
		}
		line.user = "abc"
		address, err := line.far(ctx, line.Front)
		if err != nil {
			return err
		}
		_, err = line.end(lab.startAlone(ctx, string(kind), address))
		return err
	}
}

// FarEnds starts raw far ends that register under the ids from first on. Lines
// whose far end listens have one from the start and take no other.
func (l *Line) FarEnds(ctx context.Context, first, count int) error {
	if count == 0 {
		return nil
	}
	if l.carrier == "" {
		return errors.New("no far end registers with this peer")
	}
	address, err := l.far(ctx, l.Front)
	if err != nil {
		return err
	}
	_, err = l.end(l.lab.startFar(ctx, string(l.carrier), address, first, count))
	return err
}
