//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.com/converge/e2e/internal/fault"
)

// TestKilledInTheMiddle: kill -9 of the server in the middle of a large sftp
// get, and of a put, and another start. Stock sftp ends with the right file.
func TestKilledInTheMiddle(t *testing.T) {
	size := int64(24 << 20)
	if soakTime(t) > 0 {
		size = 1 << 30
	}
	whole := t // servers outlive the subtests
	key := filepath.Join(t.TempDir(), "state.key")
	makeStateKey(t, key)
	flags := []string{"--state-key", key}
	s := startServer(t, append(flags, "--listen", privateLoopback(rand.New(rand.NewPCG(rand.Uint64(), 0))))...)
	id := newIdentity(t)
	a := startAgent(t, s, id, "--expiry", "0", "--max-duration", "0")
	gate := openGate(t, s.addr)
	w := viaWsproxy(id, throughGate(a, s, gate))
	source, want := randomFile(t, size)
	for _, verb := range []string{"get", "put"} {
		t.Run(verb, func(t *testing.T) {
			target := filepath.Join(t.TempDir(), "target")
			batch := filepath.Join(t.TempDir(), "batch")
			if err := os.WriteFile(batch, fmt.Appendf(nil, "%s %s %s\n", verb, source, target), 0o600); err != nil {
				t.Fatal(err)
			}
			client := start(t, nil, "sftp", append(append([]string{"-q", "-b", batch}, w.options...), "-oServerAliveCountMax=36", "abc@localhost")...)
			// It goes on for a third and waits there.
			third := fault.Fault{Kind: fault.Stall, Up: verb == "put", After: size / 3}
			eventually(t, client, func() bool { return gate.Set(0, third) })
			fired := gate.Counts.Fired[fault.Stall].Load()
			eventually(t, client, func() bool { return gate.Counts.Fired[fault.Stall].Load() > fired })
			begin := time.Now()
			s.kill(t)
			gate.CutAll(true)
			s = s.restart(whole, flags...)
			back := time.Now()
			if code := client.waitLong(t); code != 0 {
				t.Fatalf("sftp's exit code is %d:\n%s", code, client.out)
			}
			t.Logf("%d MiB, killed after a third: away for %v, and %v to the end", size>>20, back.Sub(begin).Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
			if got := fileSum(t, target); got != want {
				t.Error("the file differs")
			}
		})
	}
	if n := gate.Counts.Resumed.Load(); n < 2 {
		t.Errorf("%d sessions went on by another connection, want 2", n)
	}
}

func openGate(t *testing.T, target string) *fault.Gate {
	t.Helper()
	g, err := fault.Open("127.0.0.1:0", target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// eventually looks until something holds that a process that goes on brings
// about.
func eventually(t *testing.T, p *process, holds func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	limit := time.After(stuck)
	for !holds() {
		select {
		case <-look.C:
		case <-p.done:
			t.Fatalf("the process ended early:\n%s", p.out)
		case <-limit:
			t.Fatalf("it did not come about within %v", stuck)
		}
	}
}

// waitLong is wait for what may take long.
func (p *process) waitLong(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(stuck):
		t.Fatalf("%s goes on:\n%s", p.cmd.Path, p.out)
	}
	return p.cmd.ProcessState.ExitCode()
}
