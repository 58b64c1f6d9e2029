package frame

import (
	"math/rand/v2"
	"sync"
	"time"
)

// controls are a sender's pings and pongs. Whoever reads never waits for the
// network to take a pong: two peers that read only after they have written
// everything would otherwise stop for good. So they are written by goroutines
// of their own, which exist only while there is something to write: at most
// one for pongs and one for a ping.
type controls struct {
	running sync.WaitGroup

	mu      sync.Mutex
	over    bool
	timer   *time.Timer
	pong    []byte // the newest ping's payload
	pongDue bool
	ponging bool
	pinging bool
}

// keepAlive sends a ping about every interval, until stop; 0 is never.
func (s *sender) keepAlive(every time.Duration) {
	if every == 0 {
		return
	}
	c := &s.control
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(jitter(every), func() {
		c.mu.Lock()
		if !c.over {
			c.timer.Reset(jitter(every))
		}
		c.mu.Unlock()
		s.ping()
	})
}

// jitter spreads d by a quarter either way.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2+1)
}

// ping writes an empty ping (section 5.5.2), unless one is on its way still,
// and returns when it is written. Its errors are met by the next data frame; a
// peer that cannot be written to is found out by the reader's silence limit.
func (s *sender) ping() {
	c := &s.control
	c.mu.Lock()
	if c.over || c.pinging {
		c.mu.Unlock()
		return
	}
	c.pinging = true
	c.running.Add(1)
	c.mu.Unlock()
	defer c.running.Done()
	var buf [maxHeader]byte
	s.controlFrame(opPing, buf[:])
	c.mu.Lock()
	c.pinging = false
	c.mu.Unlock()
}

// answer queues a pong; only the newest ping needs one (section 5.5.3).
func (s *sender) answer(payload []byte) {
	c := &s.control
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pong = append(c.pong[:0], payload...)
	c.pongDue = true
	if !c.ponging && !c.over {
		c.ponging = true
		c.running.Add(1)
		go s.pongs()
	}
}

// pongs writes pongs as long as one is due.
func (s *sender) pongs() {
	c := &s.control
	defer c.running.Done()
	var buf [maxHeader + maxControl]byte
	for {
		c.mu.Lock()
		if !c.pongDue {
			c.ponging = false
			c.mu.Unlock()
			return
		}
		c.pongDue = false
		n := copy(buf[maxHeader:], c.pong)
		c.mu.Unlock()
		s.controlFrame(opPong, buf[:maxHeader+n])
	}
}

// controlFrame writes a ping or pong, which begins at buf[maxHeader].
func (s *sender) controlFrame(op byte, buf []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closeSent {
		_, _ = s.frame(op, buf, maxHeader)
	}
}

// stop ends pings and pongs and waits for those under way. A write that is
// stuck is ended by endBy or by closing the connection.
func (s *sender) stop() {
	c := &s.control
	c.mu.Lock()
	c.over = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	c.running.Wait()
}
