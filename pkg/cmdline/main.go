package cmdline

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// Main runs the program on the process's arguments, streams and signals, and
// exits. The first SIGINT or SIGTERM ends the context; a second one ends the
// process at once, with 128 and its number as a shell says it, unless the
// program has asked for its EndInPeace.
// A SIGINT that was ignored at the start stays so: sftp starts ssh, and with it
// its ProxyCommand, that way, to keep the session when a transfer is aborted.
func Main(p Program) {
	peace := new(atomic.Bool)
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), peaceKey{}, peace))
	caught := make(chan os.Signal, 2)
	signal.Notify(caught, syscall.SIGTERM)
	if !signal.Ignored(os.Interrupt) {
		signal.Notify(caught, os.Interrupt)
	}
	go func() { // lives as long as the process
		<-caught
		cancel()
		for s := range caught {
			if peace.Load() {
				continue
			}
			code := 1
			if number, ok := s.(syscall.Signal); ok {
				code = 128 + int(number)
			}
			os.Exit(code)
		}
	}()
	os.Exit(Run(ctx, p, os.Args, os.Stdin, os.Stdout, os.Stderr))
}

type peaceKey struct{}

// EndInPeace asks Main, whose context ctx comes from, not to end the process at
// a second signal: for a program that passes signals on, or that ends within a
// bounded time and would leave something behind. It does nothing to another
// context.
func EndInPeace(ctx context.Context) {
	if peace, ok := ctx.Value(peaceKey{}).(*atomic.Bool); ok {
		peace.Store(true)
	}
}
