package front

import (
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Budget counts the connections of the process against its limit of open
// files, so that newcomers are turned away with a sentence before the limit
// is met inside some unlucky system call. Its methods may be called
// concurrently.
type Budget struct {
	open atomic.Int64
	// soft is where new sessions are refused, hard where new connections are
	// closed unheard; 0 is no limit.
	soft, hard int64
}

// reserve is how many descriptors are kept for everything that is not a
// connection: listeners, files of the pages, the poller.
const reserve = 32

// NewBudget makes a budget for a limit of open files; 0 means no limit.
func NewBudget(files uint64) *Budget {
	if files == 0 {
		return &Budget{}
	}
	limit := int64(min(files, 1<<40))
	hard := limit - min(reserve, limit/2)
	return &Budget{hard: hard, soft: hard - hard/8}
}

// Opened counts a connection in that net/http does not see any more.
func (b *Budget) Opened() { b.open.Add(1) }

// Closed counts it out.
func (b *Budget) Closed() { b.open.Add(-1) }

// connState is for http.Server.ConnState.
func (b *Budget) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		b.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		b.open.Add(-1)
	}
}

// spent reports whether a new session must be refused.
func (b *Budget) spent() bool { return b.soft > 0 && b.open.Load() > b.soft }

// listener closes connections beyond the hard limit as soon as they come.
type listener struct {
	net.Listener
	budget *Budget
	plain  bool // no TLS: words can be said
}

const fullAnswer = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nRetry-After: 5\r\n\r\n" + fullText + "\n"

func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.budget.hard == 0 || l.budget.open.Load() < l.budget.hard {
			return conn, err
		}
		if l.plain {
			// A fresh socket has room for it: this does not wait.
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write([]byte(fullAnswer))
		}
		_ = conn.Close()
	}
}
