package mux

import (
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/container/guest/wire"
)

// TestStall: a connection that nobody reads ends when it has used up what all have
// together, and no other does.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget, stall = 100 << 10, 10 * time.Second
		o := newOriginal(t, Config{Budget: budget, Stall: stall})
		unread, slow := o.open(1), o.open(2)
		start := time.Now()
		var sending sync.WaitGroup
		sending.Go(func() {
			for range 4 {
				o.send(wire.Packet{Type: wire.TypeData, ConnectionID: 1, Payload: make([]byte, 20<<10)})
			}
			for range 10 {
				o.send(wire.Packet{Type: wire.TypeData, ConnectionID: 2, Payload: make([]byte, 10<<10)})
			}
		})
		o.want(wire.Packet{Type: wire.TypeClose, ConnectionID: 1})
		if waited := time.Since(start); waited != stall {
			t.Errorf("it waited %v, not %v", waited, stall)
		}
		sending.Wait()
		if _, err := unread.Read(make([]byte, 1)); !errors.Is(err, ErrStalled) {
			t.Errorf("reading it says %v", err)
		}
		// The other got everything, and may go on at its pace, however full it is.
		var more sync.WaitGroup
		more.Go(func() {
			for range 20 {
				o.send(wire.Packet{Type: wire.TypeData, ConnectionID: 2, Payload: make([]byte, 10<<10)})
			}
			o.send(wire.Packet{Type: wire.TypeClose, ConnectionID: 2})
		})
		n := 0
		for buf := make([]byte, 7<<10); ; {
			time.Sleep(stall * 9 / 10) // of the bubble's clock
			read, err := slow.Read(buf)
			n += read
			if err != nil {
				if err != io.EOF {
					t.Errorf("the slow one ended with %v", err)
				}
				break
			}
		}
		if n != 300<<10 {
			t.Errorf("the slow one got %d bytes", n)
		}
		o.want(wire.Packet{Type: wire.TypeSuccess, ConnectionID: 2})
		more.Wait()
		o.end()
	})
}

// TestBudget: with the extensions, too, there is a limit to what waits in all
// connections together.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		budget := Config{}.withDefaults().Budget
		var writing sync.WaitGroup
		var unread []*Stream
		for range budget/Window + 1 {
			front, guest := p.connect(t)
			unread = append(unread, guest)
			writing.Go(func() {
				_, _ = front.Write(make([]byte, Window))
				_ = front.CloseWrite()
			})
		}
		writing.Wait() // until one was closed, the last could not write
		synctest.Wait()
		p.guest.mu.Lock()
		if p.guest.queued > budget || p.guest.queued < budget-Window {
			t.Errorf("%d bytes wait, and %d may", p.guest.queued, budget)
		}
		p.guest.mu.Unlock()
		closed := 0
		for _, guest := range unread {
			if _, err := guest.Read(make([]byte, 1)); errors.Is(err, ErrStalled) {
				closed++
			} else if err != nil {
				t.Error(err)
			}
		}
		if closed != 1 {
			t.Errorf("%d connections were closed", closed)
		}
		p.stop()
		p.running.Wait()
	})
}
