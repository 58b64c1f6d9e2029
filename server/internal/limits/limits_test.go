package limits

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// at makes Limits with a clock that the test moves.
func at(cfg Config) (*Limits, *time.Time) {
	l := New(cfg)
	now := time.Unix(1_700_000_000, 0)
	l.now = func() time.Time { return now }
	return l, &now
}

// enter is Enter and Come.
func enter(l *Limits, addr netip.Addr, kind Kind, id string) (*Ticket, *Exceeded) {
	ticket, exceeded := l.Enter(addr, kind)
	if exceeded == nil && kind != Data {
		if exceeded = ticket.Come(id, true); exceeded != nil {
			ticket.End()
			return nil, exceeded
		}
	}
	return ticket, exceeded
}

var (
	one   = netip.MustParseAddr("192.0.2.1")
	two   = netip.MustParseAddr("192.0.2.2")
	six   = netip.MustParseAddr("2001:db8:1:2::1")
	sixty = netip.MustParseAddr("2001:db8:1:2:ffff::1%eth0")
	seven = netip.MustParseAddr("2001:db8:1:3::1")
)

func TestNetwork(t *testing.T) {
	for addr, want := range map[netip.Addr]string{
		one: "192.0.2.1/32", six: "2001:db8:1:2::/64", sixty: "2001:db8:1:2::/64", seven: "2001:db8:1:3::/64",
		netip.MustParseAddr("::ffff:192.0.2.1"): "192.0.2.1/32", {}: "invalid Prefix",
	} {
		if got := Network(addr).String(); got != want {
			t.Errorf("%v: %s, want %s", addr, got, want)
		}
	}
}

// TestZero: no limit is none.
func TestZero(t *testing.T) {
	l, _ := at(Config{})
	for range 10_000 {
		ticket, exceeded := enter(l, one, Agent, "id")
		if exceeded != nil {
			t.Fatal(exceeded)
		}
		ticket.Failed()
	}
}

func TestRates(t *testing.T) {
	for name, test := range map[string]struct {
		cfg      Config
		kind     Kind
		fails    bool
		id       string // of others, who are not held up
		addr     netip.Addr
		sentence string
	}{
		"registrations":    {Config{Registrations: 6}, Agent, false, "id", two, "too many registrations from your address"},
		"id registrations": {Config{IDRegistrations: 6}, Agent, false, "other", one, "too many registrations of this id"},
		"id connects":      {Config{IDConnects: 6}, Client, false, "other", one, "too many clients came to this id"},
		"failures":         {Config{Failures: 6}, Client, true, "id", two, "too many failed attempts from your address"},
		"failures of data": {Config{Failures: 6}, Data, true, "", seven, "too many failed attempts from your address"},
	} {
		t.Run(name, func(t *testing.T) {
			l, now := at(test.cfg)
			again := func() *Exceeded {
				ticket, exceeded := enter(l, one, test.kind, "id")
				if exceeded == nil {
					if test.fails {
						ticket.Failed()
					}
					ticket.End()
				}
				return exceeded
			}
			for i := range 6 {
				if exceeded := again(); exceeded != nil {
					t.Fatalf("the %dth: %v", i+1, exceeded)
				}
			}
			exceeded := again()
			if exceeded == nil || exceeded.RetryAfter != 10 || !exceeded.First || !strings.HasPrefix(exceeded.Error(), test.sentence) {
				t.Fatalf("the 7th: %+v", exceeded)
			}
			if _, exceeded := enter(l, test.addr, test.kind, test.id); exceeded != nil {
				t.Errorf("others: %v", exceeded)
			}
			*now = now.Add(9 * time.Second)
			if exceeded := again(); exceeded == nil || exceeded.RetryAfter != 1 || exceeded.First {
				t.Errorf("a second too early: %+v", exceeded)
			}
			*now = now.Add(time.Second)
			if exceeded := again(); exceeded != nil {
				t.Errorf("when it said: %v", exceeded)
			}
			if again() == nil {
				t.Error("and one more at once")
			}
		})
	}
}

// TestDebt: guesses that were under way together are paid for later.
func TestDebt(t *testing.T) {
	l, now := at(Config{Failures: 60})
	var tickets []*Ticket
	for range 120 {
		ticket, exceeded := enter(l, six, Client, "id")
		if exceeded != nil {
			t.Fatal(exceeded)
		}
		tickets = append(tickets, ticket)
	}
	for _, ticket := range tickets {
		ticket.Failed()
		ticket.End()
	}
	if _, exceeded := enter(l, sixty, Client, "id"); exceeded == nil || exceeded.RetryAfter != 61 {
		t.Errorf("%+v", exceeded)
	}
	*now = now.Add(time.Minute + time.Second)
	if _, exceeded := enter(l, sixty, Client, "id"); exceeded != nil {
		t.Error(exceeded)
	}
}

func TestCounts(t *testing.T) {
	l, _ := at(Config{Connections: 3, Handshakes: 2, IDClients: 2})
	come := func(addr netip.Addr, kind Kind, id, want string) *Ticket {
		t.Helper()
		ticket, exceeded := enter(l, addr, kind, id)
		switch {
		case want == "" && exceeded != nil:
			t.Fatal(exceeded)
		case want != "" && (exceeded == nil || exceeded.Limit != want || exceeded.RetryAfter < 1):
			t.Fatalf("%+v, want %s", exceeded, want)
		}
		return ticket
	}
	a, b := come(one, Client, "id", ""), come(one, Client, "id", "")
	come(one, Agent, "x", "handshakes")
	come(two, Client, "id", "id-clients")
	come(two, Agent, "id", "") // an agent is no client
	a.Settled()
	a.Settled()
	c := come(one, Agent, "x", "")
	b.Settled()
	come(one, Agent, "y", "connections")
	come(one, Data, "", "") // completes what is there
	a.End()
	a.End() // twice is once
	come(one, Client, "id", "")
	come(two, Client, "id", "id-clients")
	c.End()
}

// TestStrangers: who is not let in uses up nothing of an id, nor does an agent
// that names a key and does not prove it.
func TestStrangers(t *testing.T) {
	l, _ := at(Config{IDClients: 1, IDConnects: 2, IDRegistrations: 2})
	for range 10 {
		for _, kind := range []Kind{Agent, Client} {
			ticket, exceeded := l.Enter(one, kind)
			if exceeded != nil {
				t.Fatal(exceeded)
			}
			defer ticket.End()
		}
		ticket, exceeded := l.Enter(one, Agent)
		if exceeded == nil {
			exceeded = ticket.Come("id", false)
		}
		if exceeded != nil {
			t.Fatal(exceeded)
		}
		ticket.End()
	}
	for _, kind := range []Kind{Agent, Client} {
		if _, exceeded := enter(l, two, kind, "id"); exceeded != nil {
			t.Errorf("one who is let in: %v", exceeded)
		}
	}
	l.Proved("id")
	ticket, _ := l.Enter(two, Agent)
	if exceeded := ticket.Come("id", false); exceeded == nil || exceeded.Limit != "id-registrations" {
		t.Errorf("what was proved is not counted: %+v", exceeded)
	}
}

// TestMemory: with more addresses than are counted, what is counted stays
// bounded and so does what a newcomer may do; what is over is forgotten.
func TestMemory(t *testing.T) {
	const most = 1000
	l, now := at(Config{Failures: 10, IDConnects: 10})
	l.addrs.most, l.ids.most = most, most
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	limited := 0
	for i := range 2 * most {
		ticket, exceeded := enter(l, address(i), Client, fmt.Sprint(i))
		if exceeded != nil {
			limited++
			continue
		}
		ticket.Failed()
		ticket.End()
	}
	if n, ids := len(l.addrs.entries), len(l.ids.entries); n > most || ids > most {
		t.Errorf("%d addresses and %d ids are kept", n, ids)
	}
	if limited < most-100 {
		t.Errorf("only %d were held up", limited)
	}
	*now = now.Add(2 * time.Minute)
	if _, exceeded := enter(l, one, Client, "id"); exceeded != nil {
		t.Error(exceeded)
	}
	if n, ids := len(l.addrs.entries), len(l.ids.entries); n != 1 || ids != 1 {
		t.Errorf("%d addresses and %d ids are kept after all is over", n, ids)
	}
}

// TestConcurrent is for the race detector, and adds up.
func TestConcurrent(t *testing.T) {
	l, _ := at(Default)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 50 {
				if ticket, exceeded := enter(l, one, Kind(i%3), "id"); exceeded == nil {
					ticket.Settled()
					ticket.Failed()
					ticket.End()
				}
			}
		})
	}
	group.Wait()
	if e := l.addrs.entries[Network(one)]; e.users != 0 || e.open != 0 || e.handshakes != 0 {
		t.Errorf("%+v is left", e)
	}
}
