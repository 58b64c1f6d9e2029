//go:build unix

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/converge/pkg/frame"
)

const (
	costBytes = 256 << 20
	// costPacket is what ssh writes: a packet of 32 KiB and what belongs to it.
	costPacket = 32<<10 + 37
	// costRead is what a relay writes: what one read brought it.
	costRead = 128 << 10
)

// plainProxy is the least that a program between ssh and a connection can do:
// read 32 KiB at most, write them. Its argument is an address.
func plainProxy() {
	conn, err := net.Dial("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	move := func(dst io.Writer, src io.Reader) {
		_, _ = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 32<<10))
	}
	go func() {
		move(conn, os.Stdin)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	move(os.Stdout, conn)
}

// farEnd takes what comes up, or sends down, and ends the stream.
func farEnd(conn net.Conn, way string) {
	if way == "up" {
		buf := make([]byte, 256<<10)
		for n := 0; n < costBytes; {
			m, err := conn.Read(buf)
			if n += m; err != nil {
				break
			}
		}
	} else {
		block := make([]byte, costRead)
		for range costBytes / costRead {
			if _, err := conn.Write(block); err != nil {
				break
			}
		}
	}
	_ = conn.Close()
}

// cost runs one of the programs between a parent like ssh and the far end, and
// returns the CPU time that it took for each GiB.
func cost(b *testing.B, program, address, way string) time.Duration {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), program, address)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var up sync.WaitGroup
	if way == "up" {
		up.Go(func() {
			block := make([]byte, costPacket)
			for left := costBytes; left > 0; left -= len(block) {
				if _, err := in.Write(block[:min(left, len(block))]); err != nil {
					return
				}
			}
		})
	}
	got, _ := io.CopyBuffer(io.Discard, struct{ io.Reader }{out}, make([]byte, 256<<10))
	_ = in.Close()
	up.Wait()
	if err := cmd.Wait(); err != nil || way == "down" && got != costBytes {
		b.Fatalf("%s: %v, %d bytes\n%s", program, err, got, stderr.String())
	}
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()) * (1 << 30) / costBytes
}

// BenchmarkCost compares wsproxy with a plain proxy, by the CPU time of their
// processes, in turns. Read the ratio.
func BenchmarkCost(b *testing.B) {
	for _, way := range []string{"up", "down"} {
		b.Run(way, func(b *testing.B) {
			plain, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			var serving sync.WaitGroup
			defer serving.Wait()
			defer plain.Close()
			serving.Go(func() {
				for {
					conn, err := plain.Accept()
					if err != nil {
						return
					}
					farEnd(conn, way)
				}
			})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if peer, err := frame.Accept(w, r, ""); err == nil {
					farEnd(frame.Server(peer.Conn, nil, frame.Options{}), way)
				}
			}))
			defer server.Close()
			addresses := map[string]string{
				"plainproxy": plain.Addr().String(),
				"wsproxy":    "ws" + strings.TrimPrefix(server.URL, "http") + "/client/cost",
			}
			seconds := map[string][]float64{}
			for b.Loop() {
				for program, address := range addresses {
					seconds[program] = append(seconds[program], cost(b, program, address, way).Seconds())
				}
			}
			median := func(program string) float64 {
				slices.Sort(seconds[program])
				return seconds[program][len(seconds[program])/2]
			}
			b.ReportMetric(median("plainproxy"), "plain-cpu-s/GiB")
			b.ReportMetric(median("wsproxy"), "wsproxy-cpu-s/GiB")
			b.ReportMetric(median("wsproxy")/median("plainproxy"), "wsproxy/plain")
			b.ReportMetric(0, "ns/op")
		})
	}
}
