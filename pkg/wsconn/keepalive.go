package wsconn

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

//lint:file-ignore SA1019 this package exists to confine nhooyr.io/websocket

// keepAlive sends the pings of a connection. Between them it is a timer and no
// goroutine.
type keepAlive struct {
	mu       sync.Mutex
	timer    *time.Timer
	stopped  bool
	liveness liveness

	pinging atomic.Bool // a ping waits for its pong
	running sync.WaitGroup
}

// startKeepAlive sends pings until stop is called or the connection ends.
func (c *Conn) startKeepAlive() {
	if c.opts.KeepAlive < 0 {
		return
	}
	c.alive.mu.Lock()
	defer c.alive.mu.Unlock()
	c.alive.timer = time.AfterFunc(jitter(c.opts.KeepAlive, rand.Float64()), c.tick)
}

// stop starts no further ping. Once the connection is closed, running may be
// waited for.
func (k *keepAlive) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	if k.timer != nil {
		k.timer.Stop()
	}
}

// tick judges the peer and pings it.
func (c *Conn) tick() {
	k := &c.alive
	k.mu.Lock()
	if k.stopped || isDone(c.ended) {
		k.mu.Unlock()
		return
	}
	k.running.Add(1)
	defer k.running.Done()
	dead := k.liveness.dead(c.link.received.Load(), c.stalled.Load(), c.opts.Missed)
	if !dead {
		k.timer.Reset(jitter(c.opts.KeepAlive, rand.Float64()))
	}
	k.mu.Unlock()
	switch {
	case dead:
		c.end(ErrKeepAlive)
		c.link.abort()
	case k.pinging.CompareAndSwap(false, true):
		// It returns at the pong or the end of the connection. While one
		// ping is on its way no other is sent: a peer that never answers,
		// but sends data, must not make goroutines pile up.
		_ = c.ws.Ping(context.Background())
		k.pinging.Store(false)
	}
}

// liveness judges from the signs of life whether a peer is dead.
type liveness struct {
	seen   uint64
	asked  bool // a ping was sent since
	missed int
}

// dead is to be called before each ping with the count of signs of life. Its
// answer is true when limit calls in a row have found no new one.
func (l *liveness) dead(received uint64, stalled bool, limit int) bool {
	if received != l.seen || stalled || !l.asked {
		*l = liveness{seen: received, asked: true}
		return false
	}
	l.missed++
	return l.missed >= limit
}

// jitter returns a time within 25 % of mean; at is from 0 to 1.
func jitter(mean time.Duration, at float64) time.Duration {
	return time.Duration(float64(mean) * (0.75 + 0.5*at))
}
