//go:build linux

// Package child holds what the harness runs as processes of their own, so that
// the system counts their CPU time and memory apart: the relays to compare
// with, the raw far end, a line with a delay, and a wrapper that accounts for
// a command with all its descendants. It must not know what is measured.
package child

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/converge/bench/carrier"
)

// Arg is the first argument by which a program that calls Main becomes a
// child.
const Arg = "bench-child"

// Main runs a child if the arguments, as in os.Args, ask for one, and reports
// whether they did. The exit code is 0 after SIGTERM.
//
//	relay KIND TARGET            a relay; TARGET is of tcp and splice alone
//	far KIND ADDRESS FIRST COUNT the raw far end, under the ids FIRST, FIRST+1, …
//	delay TARGET DURATION        a TCP line that takes so long each way
//	reap COMMAND ARG…            runs it, and writes its Usage to descriptor 3
//
// All but reap listen on 127.0.0.1 and print "ready ADDRESS" on stdout when
// clients can come.
func Main(args []string) (code int, asked bool) {
	if len(args) < 3 || args[1] != Arg {
		return 0, false
	}
	mode, args := args[2], args[3:]
	if mode == "reap" {
		return reap(args), true
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case mode == "relay" && len(args) == 2:
		err = Relay(ctx, args[0], args[1], ready)
	case mode == "far" && len(args) == 4:
		err = far(ctx, args)
	case mode == "delay" && len(args) == 2:
		var each time.Duration
		if each, err = time.ParseDuration(args[1]); err == nil {
			err = Delay(ctx, args[0], each, ready)
		}
	default:
		err = fmt.Errorf("no child is called %q with %d arguments", mode, len(args))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

func ready(address string) { fmt.Println("ready", address) }

// far serves Raw under many ids and is ready when all of them are.
func far(ctx context.Context, args []string) error {
	first, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	// So many at a time, so that no queue of a listener overflows.
	slots := make(chan struct{}, 64)
	var waiting sync.WaitGroup
	waiting.Add(count)
	address := ""
	var mu sync.Mutex
	for i := range count {
		group.Go(func() error {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				waiting.Done()
				return nil
			}
			done := sync.OnceFunc(func() {
				<-slots
				waiting.Done()
			})
			defer done()
			return carrier.End{
				Kind: carrier.Kind(args[0]), Address: args[1], ID: ID(first + i), Handle: Raw,
				Ready: func(a string) {
					mu.Lock()
					address = a
					mu.Unlock()
					done()
				},
			}.Serve(ctx)
		})
	}
	waiting.Wait()
	if ctx.Err() == nil {
		ready(address)
	}
	return group.Wait()
}

// ID is the i-th id of a far end.
func ID(i int) string { return "bench-" + strconv.Itoa(i) }

// serve accepts on a free port of loopback until ctx ends and gives each
// connection to handle, which closes it. It waits for all of them.
func serve(ctx context.Context, ready func(string), handle func(net.Conn)) error {
	return carrier.End{Kind: carrier.TCP, Address: "127.0.0.1:0", Ready: ready, Handle: handle}.Serve(ctx)
}

// both runs two directions and returns when both have ended.
func both(there, back func()) {
	var wg sync.WaitGroup
	wg.Go(there)
	back()
	wg.Wait()
}

// plain hides all methods but those that a copy through a buffer needs, so
// that io.CopyBuffer uses the buffer.
type plain struct{ conn net.Conn }

func (p plain) Read(b []byte) (int, error)  { return p.conn.Read(b) }
func (p plain) Write(b []byte) (int, error) { return p.conn.Write(b) }

// copyPlain copies with a 32 KiB buffer.
func copyPlain(dst, src net.Conn) {
	_, _ = io.CopyBuffer(plain{dst}, plain{src}, make([]byte, carrier.Chunk))
}
