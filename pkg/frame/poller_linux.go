package frame

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Poller waits for many idle connections with one goroutine. Its zero value is
// not of use; a nil *Poller is one that takes no connection.
type Poller struct {
	epoll *os.File
	raw   syscall.RawConn
	done  chan struct{}

	mu    sync.Mutex
	sides map[int32]*side // by descriptor
}

// NewPoller starts a poller, which must be closed when the connections that
// use it have ended. Where the system has none it is nil.
func NewPoller() (*Poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Nonblocking, so that Go's own poller takes it: an epoll descriptor is
	// ready when one of those that it watches is.
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &Poller{
		epoll: os.NewFile(uintptr(fd), "epoll"),
		done:  make(chan struct{}),
		sides: make(map[int32]*side),
	}
	if p.raw, err = p.epoll.SyscallConn(); err != nil {
		_ = p.epoll.Close()
		return nil, fmt.Errorf("cannot watch connections: %w", err)
	}
	go p.run()
	return p, nil
}

// Close ends the poller and waits for it. Close it once.
func (p *Poller) Close() {
	if p == nil {
		return
	}
	_ = p.epoll.Close()
	<-p.done
}

// run wakes the sides that have something to read, until Close.
func (p *Poller) run() {
	defer close(p.done)
	var events [64]syscall.EpollEvent
	var ready []*side
	for {
		n := 0
		err := p.raw.Read(func(fd uintptr) bool {
			var err error
			n, err = syscall.EpollWait(int(fd), events[:], 0)
			return err == nil && n > 0
		})
		if err != nil {
			return
		}
		p.mu.Lock()
		for _, e := range events[:n] {
			// One that was forgotten meanwhile is not there, and one whose
			// descriptor another has now is woken for nothing, which is no
			// harm.
			if s := p.sides[e.Fd]; s != nil {
				ready = append(ready, s)
			}
		}
		p.mu.Unlock()
		for _, s := range ready {
			s.wake()
		}
		clear(ready)
		ready = ready[:0]
	}
}

// arm wakes the side once when it has something to read, or has already. s.mu
// is held.
func (p *Poller) arm(s *side) error {
	armErr := os.ErrClosed
	err := s.raw.Control(func(fd uintptr) {
		op := syscall.EPOLL_CTL_MOD
		if !s.armed {
			op, s.fd, s.armed = syscall.EPOLL_CTL_ADD, int32(fd), true
			p.mu.Lock()
			p.sides[s.fd] = s
			p.mu.Unlock()
		}
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | oneShot, Fd: s.fd}
		p.epollControl(func(epfd int) { armErr = syscall.EpollCtl(epfd, op, int(fd), &event) })
	})
	if err == nil {
		err = armErr
	}
	return err
}

// oneShot is EPOLLONESHOT: one event, and none until it is armed again.
const oneShot = 1 << 30

// epollControl calls f with the epoll descriptor, unless that is closed.
func (p *Poller) epollControl(f func(epfd int)) {
	_ = p.raw.Control(func(epfd uintptr) { f(int(epfd)) })
}

// forget makes the poller wake s no more. Call it before the descriptor is
// closed, which then takes it out of the kernel's table too.
func (p *Poller) forget(s *side) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sides[s.fd] == s {
		delete(p.sides, s.fd)
	}
}
