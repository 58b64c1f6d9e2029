//go:build unix

package hangup

import (
	"errors"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// watch polls for errors alone: with no events asked for, poll(2) returns only
// for POLLERR and POLLHUP.
func watch(f *os.File, lost chan<- struct{}) (release func()) {
	wake, waker, err := os.Pipe()
	if err != nil {
		return func() {} // out of descriptors: the next write tells
	}
	var done sync.WaitGroup
	done.Go(func() {
		defer runtime.KeepAlive(f) // or its descriptor may be closed, and used for another
		fds := []unix.PollFd{
			{Fd: int32(f.Fd())}, //nolint:gosec // a descriptor fits
			{Fd: int32(wake.Fd()), Events: unix.POLLIN},
		}
		for {
			_, err := unix.Poll(fds, -1)
			switch {
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
				continue
			case err != nil:
				return
			case fds[0].Revents&unix.POLLNVAL != 0:
				return // darwin cannot poll devices: the next write tells
			case fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0:
				close(lost)
				return
			case fds[1].Revents != 0:
				return
			}
		}
	})
	return func() {
		_ = waker.Close() // the pipe hangs up
		done.Wait()
		_ = wake.Close()
	}
}
