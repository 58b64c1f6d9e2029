//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
	"example.com/converge/server/internal/front"
	"example.com/converge/server/internal/hub"
)

// idleVariable makes a test binary the other end of BenchmarkIdle, in its own
// process, so that this one's memory is the server's alone.
const idleVariable = "SERVER_TEST_IDLE"

func init() {
	spec := strings.Fields(os.Getenv(idleVariable))
	if len(spec) != 3 {
		return
	}
	n, _ := strconv.Atoi(spec[2])
	if err := idleEnds(spec[0], spec[1], n); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// idleEnds opens n connections of a kind, says so and keeps them until its
// input ends.
func idleEnds(address, kind string, n int) error {
	rv := rendezvous.Server{Host: address}
	ctx := context.Background()
	agents := n
	if kind == "session" {
		agents = 1
	}
	var opening errgroup.Group
	opening.SetLimit(32)
	for i := range agents {
		opening.Go(func() error {
			a, err := fakeagent.Register(ctx, rv, fmt.Sprintf("agent-%d", i), fakeagent.NewKey(), nil)
			switch {
			case err != nil:
				return err
			case kind == "spare":
				data, err := a.Park(ctx)
				if err != nil {
					return err
				}
				go func() { _, _ = io.Copy(io.Discard, data) }() // answers pings
			case kind == "session":
				go func() { _ = a.Serve(func(conn net.Conn) { _, _ = io.Copy(conn, conn) }) }()
			}
			return nil
		})
	}
	if err := opening.Wait(); err != nil {
		return err
	}
	if kind == "session" {
		for range n {
			opening.Go(func() error {
				conn, err := frame.Dial(ctx, rv.ClientURL("agent-0"), fakeagent.Transport(), nil, frame.Options{})
				if err != nil {
					return err
				}
				// One round trip, as a session that has been used.
				if _, err := conn.Write(make([]byte, 1000)); err != nil {
					return err
				}
				if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
					return err
				}
				go func() { _, _ = io.Copy(io.Discard, conn) }()
				return nil
			})
		}
	}
	if err := opening.Wait(); err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// resident is this process's resident memory in KiB.
func resident(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// BenchmarkIdle prints the server's resident memory for each idle control
// connection, agent with a parked connection, and session of two connections,
// over plain HTTP: as it is a moment after the last one came, and after a
// garbage collection. What the kernel holds is not in it.
func BenchmarkIdle(b *testing.B) {
	for _, kind := range []string{"control", "spare", "session"} {
		for _, n := range []int{1000, 4000} {
			b.Run(fmt.Sprintf("%s/n=%d", kind, n), func(b *testing.B) {
				for b.Loop() {
					idle(b, kind, n)
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func idle(b *testing.B, kind string, n int) {
	tuneMemory()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	budget := front.NewBudget(0)
	joiner := hub.New(hub.Config{Opened: budget.Opened, Closed: budget.Closed})
	door := front.New(front.Config{Endpoints: joiner, Budget: budget})
	var serving sync.WaitGroup
	serving.Go(func() { _ = door.Serve(listener) })
	debug.FreeOSMemory()
	before := resident(b)

	ends := exec.CommandContext(b.Context(), os.Args[0])
	ends.Env = append(os.Environ(), fmt.Sprintf("%s=%v %s %d", idleVariable, listener.Addr(), kind, n))
	in, err := ends.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := ends.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := ends.Start(); err != nil {
		b.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		b.Fatalf("the other ends say %q, %v", line, err)
	}
	<-time.After(10 * time.Second) // until what is idle is parked
	b.ReportMetric((resident(b)-before)/float64(n), "KiB/each")
	debug.FreeOSMemory()
	b.ReportMetric((resident(b)-before)/float64(n), "KiB/each-after-GC")

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := errors.Join(door.Shutdown(ctx), joiner.Shutdown(ctx)); err != nil {
		b.Error(err)
	}
	_ = in.Close()
	_ = ends.Wait()
	serving.Wait()
}
