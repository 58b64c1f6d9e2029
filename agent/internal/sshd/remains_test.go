//go:build linux

package sshd

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"example.com/converge/pkg/watchtest"
)

// Who does not care about SIGHUP lives on, as under OpenSSH's server, until the
// server ends, and holds up neither the connection's end nor the events.
func TestDisconnectSpares(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	session := b.session(client)
	var out watchtest.Output
	session.Stdout = &out
	if err := session.Start(fmt.Sprintf(`trap '' HUP; echo ready; exec >/dev/null 2>&1; sleep %s; sleep %s`, nap(3621), nap(3622))); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "ready")
	watchtest.Eventually(t, "the process", func() bool { return len(sleeping(3621)) == 1 })
	client.Close()
	b.events.wait(t, "logout 1", 1)
	first := sleeping(3621)
	if len(first) != 1 {
		t.Fatalf("%d processes after the end of the connection", len(first))
	}
	// The command goes on with what comes next.
	_ = first[0].Kill()
	watchtest.Eventually(t, "the next process", func() bool { return len(sleeping(3622)) == 1 })
	b.shutdown(t, context.Background())
	if n := len(sleeping(3621, 3622)); n != 0 {
		t.Errorf("%d processes have survived the server", n)
	}
}

// So do those that a command left behind, with what they start, and without
// caring about SIGTERM either: what ends them then is the caller's patience.
func TestNohupLivesUntilShutdown(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	script := fmt.Sprintf(`nohup sh -c 'trap "" TERM; sleep %s; while :; do sleep %s; done' >/dev/null 2>&1 &
nohup sleep %s >/dev/null 2>&1 &`, nap(3633), nap(3634), nap(3635))
	if err := b.session(client).Run(script); err != nil {
		t.Fatal(err)
	}
	client.Close()
	b.events.wait(t, "logout 1", 1)
	watchtest.Eventually(t, "the processes", func() bool { return len(sleeping(3633, 3635)) == 2 })
	for _, p := range sleeping(3633) {
		_ = p.Kill()
	}
	watchtest.Eventually(t, "the next process", func() bool { return len(sleeping(3634)) == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b.shutdown(t, ctx)
	if n := len(sleeping(3633, 3634, 3635)); n != 0 {
		t.Errorf("%d processes have survived the server", n)
	}
}

// shutdown ends the server, with whatever patience.
func (b *bench) shutdown(t testing.TB, ctx context.Context) {
	t.Helper()
	if err := b.server.Shutdown(ctx, ""); err != nil && !errors.Is(err, ErrPatience) {
		t.Fatal(err)
	}
}
