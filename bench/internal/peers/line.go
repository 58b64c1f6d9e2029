//go:build linux

package peers

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"example.com/converge/bench/carrier"
	"example.com/converge/bench/internal/child"
	"example.com/converge/bench/internal/proc"
)

// Line is a peer that is running: clients on one side, an SSH server or raw
// far ends on the other.
type Line struct {
	// Front is the address that a client connects to. What is put before it,
	// such as a delay, has an address of its own, which Dial and SSH take in
	// its place.
	Front string
	// Relays are the processes in the middle, Ends those of the far end.
	Relays, Ends []*proc.Process

	lab       *Lab
	delay     time.Duration   // of the leg to the far end
	delays    []*proc.Process // which make it
	carrier   carrier.Kind    // by which far ends register
	websocket bool
	ids       int                         // how many far ends there are
	user      string                      // who logs in
	proxy     func(address string) string // the ProxyCommand; nil is none
}

// Stop ends all processes of the line, the far end first.
func (l *Line) Stop() {
	for _, p := range slices.Concat(l.Ends, l.delays, l.Relays) {
		p.Stop()
	}
}

// RelayCPU is the CPU time that the processes in the middle have used.
func (l *Line) RelayCPU() (time.Duration, error) { return cpu(l.Relays) }

// CPU is the CPU time that all processes of the line have used.
func (l *Line) CPU() (time.Duration, error) {
	relays, err := cpu(l.Relays)
	if err != nil {
		return 0, err
	}
	ends, err := cpu(l.Ends)
	return relays + ends, err
}

func cpu(processes []*proc.Process) (time.Duration, error) {
	var sum time.Duration
	for _, p := range processes {
		used, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// RelayRSS is the resident memory of the processes in the middle in bytes.
func (l *Line) RelayRSS() (int64, error) {
	var sum int64
	for _, p := range l.Relays {
		used, err := p.RSS()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// Calm returns a function that waits until the line has no more processes than
// now: sshd has one for each session, which ends a moment after its client.
func (l *Line) Calm() func(ctx context.Context) {
	all := slices.Concat(l.Relays, l.Ends)
	counts := make([]int, len(all))
	for i, p := range all {
		counts[i], _ = p.Descendants() // of one that has ended, whoever asks next hears
	}
	return func(ctx context.Context) {
		for i, p := range all {
			p.Quiet(ctx, counts[i])
		}
	}
}

// Kill kills Converge's server, and leaves its clients and its agent to wait for
// Revive, which starts another at the same address.
func (l *Line) Kill() { l.Relays[0].Kill() }

// Revive returns when the server serves again.
func (l *Line) Revive(ctx context.Context) error {
	p, _, err := l.lab.startServerAt(ctx, l.Front)
	if err == nil {
		l.Relays[0] = p
	}
	return err
}

// Dial opens the i-th stream to a raw far end, by way of an address: Front, or
// what stands before it.
func (l *Line) Dial(ctx context.Context, address string, i int) (net.Conn, error) {
	if l.websocket {
		return carrier.DialWS(ctx, address, child.ID(i%max(l.ids, 1)))
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", address)
}

// SSH is the beginning of a command line of ssh or sftp, options and then the
// destination, by way of an address. More options may be given.
func (l *Line) SSH(program, address string, options ...string) []string {
	args := append([]string{program}, l.lab.clientOptions()...)
	for _, option := range options {
		args = append(args, "-o"+option)
	}
	if l.proxy != nil {
		args = append(args, "-oProxyCommand="+l.proxy(address))
	} else {
		_, port, _ := net.SplitHostPort(address)
		args = append(args, "-oPort="+port)
	}
	return append(args, l.user+"@127.0.0.1")
}

// clientOptions keep the configuration and the keys of whoever runs this out
// of it, and leave what is measured at OpenSSH's defaults.
func (l *Lab) clientOptions() []string {
	return []string{
		"-F", os.DevNull, "-oBatchMode=yes", "-oLogLevel=ERROR",
		"-oIdentityFile=" + l.path("userkey"), "-oIdentitiesOnly=yes", "-oIdentityAgent=none",
		"-oPreferredAuthentications=publickey",
		"-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=" + os.DevNull, "-oGlobalKnownHostsFile=" + os.DevNull,
		"-oControlPath=none",
	}
}

// wsproxy is the ProxyCommand of the peers that speak websocket.
func (l *Lab) wsproxy(address string, options ...string) string {
	words := append([]string{quote(l.path("wsproxy"))}, options...)
	return strings.Join(words, " ") + " ws://" + address + carrier.ClientPath + child.ID(0)
}

// quote makes a word for the shell that runs a ProxyCommand.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
