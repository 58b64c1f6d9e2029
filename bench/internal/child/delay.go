//go:build linux

package child

import (
	"context"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of one direction of a delayed line: what may be under way is more
// than any window that is measured, 4096 reads of at most 64 KiB.
const (
	delayRead  = 64 << 10
	delayQueue = 4096
)

// Delay is a TCP line to target on which every byte takes the given time each
// way. It stands in for a network far away where the kernel has no delay of
// its own to offer; its bandwidth is whatever the machine gives, and nothing
// is lost.
func Delay(ctx context.Context, target string, each time.Duration, ready func(address string)) error {
	return serve(ctx, ready, func(client net.Conn) {
		far, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer far.Close()
		join(client, far, func(dst, src net.Conn) { late(dst, src, each) })
	})
}

// parcel is bytes that may go on at a time.
type parcel struct {
	due  time.Time
	data []byte
}

// late copies, each byte after a while.
func late(dst, src net.Conn, each time.Duration) {
	queue := make(chan parcel, delayQueue)
	both(func() {
		defer close(queue)
		buf := make([]byte, delayRead)
		for {
			n, err := src.Read(buf)
			if n > 0 {
				queue <- parcel{due: time.Now().Add(each), data: append([]byte(nil), buf[:n]...)}
			}
			if err != nil {
				return
			}
		}
	}, func() {
		broken := false
		for p := range queue {
			if broken {
				continue // until the reader has seen the end too
			}
			sleepUntil(p.due)
			if _, err := dst.Write(p.data); err != nil {
				broken = true
				_ = src.Close()
			}
		}
	})
}

// sleepUntil waits in the kernel: Go's timers come up to a millisecond late in a
// program that waits for the network as well, and there are four of these waits
// in a round trip by way of a relay.
func sleepUntil(due time.Time) {
	for {
		wait := time.Until(due)
		if wait <= 0 {
			return
		}
		ts := unix.NsecToTimespec(int64(wait))
		_ = unix.Nanosleep(&ts, nil) // a signal that ends it early does no harm
	}
}
