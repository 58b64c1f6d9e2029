//go:build linux || darwin

package signals

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that a process is steered by. Those that stop and
// continue are not among them: a parent that is stopped should stop.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
}

// fromTerminal are those that a terminal sends to everybody in the foreground.
var fromTerminal = []os.Signal{syscall.SIGINT, syscall.SIGQUIT}

// Notify catches the signals to pass on until stop is called. One that was
// ignored at the start (nohup) stays so; the child inherits it.
func Notify() (caught <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 16)
	for _, s := range forwarded {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	return c, func() { signal.Stop(c) }
}

// Delivered reports whether a child in this process's group has most likely
// got the signal too: it is one of a terminal's keys, and this process is in
// the foreground of its terminal.
func Delivered(s os.Signal) bool {
	if !slices.Contains(fromTerminal, s) {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false // there is none
	}
	defer tty.Close()
	raw, err := tty.SyscallConn()
	if err != nil {
		return false
	}
	group := -1
	err = raw.Control(func(fd uintptr) {
		if g, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP); err == nil {
			group = g
		}
	})
	return err == nil && group == unix.Getpgrp()
}
