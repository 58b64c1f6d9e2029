package front

import (
	"net"
	"net/http"
	"sync/atomic"
)

// Budget counts the connections of the process against its limit of open
// files, so that newcomers are turned away with a sentence before the limit
// is met inside some unlucky system call. Its methods may be called
// concurrently.
type Budget struct {
	open atomic.Int64
	// soft is where new sessions are refused, hard where every newcomer is,
	// most where newcomers wait until another one has been turned away; 0 is
	// no limit.
	soft, hard, most int64
	freed            chan struct{} // holds one token if open has sunk; may be nil
}

// reserve is how many descriptors are kept beyond the hard limit: one half to
// turn newcomers away, the other for everything that is no connection, such
// as listeners, files of the pages, the poller.
const reserve = 32

// NewBudget makes a budget for a limit of open files; 0 means no limit.
func NewBudget(files uint64) *Budget {
	if files == 0 {
		return &Budget{}
	}
	limit := int64(min(files, 1<<40))
	kept := min(reserve, limit/2)
	hard := limit - kept
	return &Budget{hard: hard, soft: hard - hard/8, most: hard + kept/2, freed: make(chan struct{}, 1)}
}

// Opened counts a connection in that net/http does not see any more.
func (b *Budget) Opened() { b.open.Add(1) }

// Closed counts it out.
func (b *Budget) Closed() {
	b.open.Add(-1)
	select {
	case b.freed <- struct{}{}:
	default:
	}
}

// connState is for http.Server.ConnState.
func (b *Budget) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		b.Opened()
	case http.StateClosed, http.StateHijacked:
		b.Closed()
	}
}

// Room reports whether there is room for what is not needed to go on: some is
// kept for sessions.
func (b *Budget) Room() bool { return b.soft == 0 || b.open.Load() < b.soft-b.soft/8 }

// spent reports whether a new session must be refused.
func (b *Budget) spent() bool { return b.soft > 0 && b.open.Load() > b.soft }

// full reports whether every newcomer must be turned away.
func (b *Budget) full() bool { return b.hard > 0 && b.open.Load() >= b.hard }

// Connections returns how many are open, and how many may be before new
// sessions are refused; 0 is no limit.
func (b *Budget) Connections() (open, limit int64) { return b.open.Load(), b.soft }

// wait returns when there is room to turn one more away, or when done is
// closed. There may be one caller at a time.
func (b *Budget) wait(done <-chan struct{}) {
	for b.most > 0 && b.open.Load() >= b.most {
		select {
		case <-b.freed:
		case <-done:
			return
		}
	}
}
