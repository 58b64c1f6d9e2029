//go:build linux

package measures

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSelect(t *testing.T) {
	some, err := Select([]string{"start", "relay"})
	if err != nil || len(some) != 2 || some[0].Name != "relay" || some[1].Name != "start" {
		t.Errorf("got %v, %v", some, err)
	}
	if all, err := Select(nil); err != nil || len(all) != len(All()) {
		t.Errorf("%d measures, %v, want all", len(all), err)
	}
	if _, err := Select([]string{"nothing"}); err == nil {
		t.Error("a measure that is none was taken")
	}
}

func TestUnits(t *testing.T) {
	if got := speed(64*mib, 2*time.Second); got != 32 {
		t.Errorf("speed is %v MiB/s, want 32", got)
	}
	if got := perGiB(3*time.Second, gib/2); got != 6 {
		t.Errorf("cost is %v s/GiB, want 6", got)
	}
}

// TestRounds: each round has everybody, begins with another one, and leaves
// out whoever failed.
func TestRounds(t *testing.T) {
	sheet := table.New("k", "T", "", "", "c")
	c := &contest{cfg: Config{Log: t.Logf}, name: "test", sheets: []*table.Sheet{sheet}}
	for _, name := range []string{"a", "b", "c"} {
		c.contenders = append(c.contenders, contender{peer: peers.Peer{Name: name}})
	}
	var order []string
	err := c.rounds(t.Context(), 3, func(_ context.Context, x contender, round int) error {
		order = append(order, fmt.Sprint(x.peer.Name, round))
		if x.peer.Name == "c" && round == 1 {
			return errors.New("broken")
		}
		return nil
	})
	if want := "a0 b0 c0 b1 c1 a1 a2 b2"; err != nil || strings.Join(order, " ") != want {
		t.Errorf("order %q, %v, want %s", order, err, want)
	}
	if failures := sheet.Failures(); len(failures) != 1 || !strings.Contains(failures[0], "broken") {
		t.Errorf("failures %q", failures)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = c.rounds(ctx, 1, func(context.Context, contender, int) error {
		cancel()
		return errors.New("because of that")
	})
	if !errors.Is(err, context.Canceled) || sheet.Failed("a") {
		t.Errorf("the end of the run gave %v and counts as a's failure: %v", err, sheet.Failed("a"))
	}
}

func TestAffordable(t *testing.T) {
	got, err := affordable(Config{Connections: []int{20, 10, 20, 1 << 40}, Log: t.Logf}, 0)
	if err != nil || !slices.Equal(got, []int{10, 20}) {
		t.Errorf("got %v, %v, want 10 and 20", got, err)
	}
	got, err = affordable(Config{Connections: []int{20, 10}, Log: t.Logf}, 1<<40)
	if err != nil || len(got) != 0 {
		t.Errorf("got %v, %v, want none", got, err)
	}
}

func TestGoals(t *testing.T) {
	costs := table.New("relay-cpu", "T", "", peers.TCPCopy, "up, 1 stream", "down, 1 stream")
	costs.Add(peers.TCPCopy, "up, 1 stream", 1)
	costs.Add(peers.Converge, "up, 1 stream", 0.85)
	costs.Add(peers.TCPCopy, "down, 1 stream", 1)
	costs.Add(peers.Converge, "down, 1 stream", 0.95)
	speeds := table.New("transfer-speed", "T", "", peers.Direct, "get")
	speeds.Add(peers.Direct, "get", 100)
	speeds.Add(peers.Converge, "get", 160)
	sessions := memorySheet("memory-sessions", "T", []int{10, 20})
	sessions.Add(peers.Converge, at(10), 5)
	sessions.Add(peers.Converge, at(20), 15)
	var b strings.Builder
	err := Goals(&b, []*table.Sheet{costs, speeds, sessions}, Config{Connections: []int{10, 20}, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| relay CPU up, against a TCP copy | 0.85 | ≤ 0.90 | ≤ 0.80 | reached |\n",
		"| relay CPU down, against a TCP copy | 0.95 | ≤ 0.90 | ≤ 0.80 | not yet |\n",
		"| 1.60 | ≥ 1.30 | ≥ 1.50 | beyond the aim |\n",
		"| KiB per live idle session | 15.0 | ≤ 20.0 | ≤ 12.0 | reached |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "key echo") {
		t.Error("it judges what was not measured")
	}
	b.Reset()
	if err := Goals(&b, nil, Config{Log: t.Logf}); err != nil || b.Len() != 0 {
		t.Errorf("with nothing measured: %v, %q", err, b.String())
	}
}
