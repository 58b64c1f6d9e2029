//go:build unix

package frame

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// loadVariable makes a test binary the load of BenchmarkCost: its own process,
// so that this one's CPU time is the relay's alone.
const loadVariable = "FRAME_TEST_LOAD"

// loadFrame is the payload of each frame, as our own ends make them.
const loadFrame = 32 << 10

// init does not return in a load process. The variable holds the address of
// the sources, that of the sinks, the number of streams and of frames each.
func init() {
	spec := strings.Fields(os.Getenv(loadVariable))
	if len(spec) == 0 {
		return
	}
	streams, _ := strconv.Atoi(spec[2])
	frames, _ := strconv.Atoi(spec[3])
	payload := make([]byte, loadFrame)
	block := fromClient(opBinary, payload)
	var all sync.WaitGroup
	for range streams {
		source, err := net.Dial("tcp", spec[0])
		if err != nil {
			os.Exit(1)
		}
		sink, err := net.Dial("tcp", spec[1])
		if err != nil {
			os.Exit(1)
		}
		all.Go(func() {
			for range frames {
				if _, err := source.Write(block); err != nil {
					os.Exit(1)
				}
			}
			_, _ = source.Write(fromClient(opClose, closePayload(CloseNormal, "")))
			_ = source.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, source)
		})
		all.Go(func() {
			buf := make([]byte, 256<<10)
			for total := 0; total < frames*loadFrame; {
				n, err := sink.Read(buf)
				if total += n; err != nil {
					os.Exit(1)
				}
			}
			_, _ = sink.Write(fromClient(opClose, closePayload(CloseNormal, "")))
			_, _ = io.Copy(io.Discard, sink)
			_ = sink.Close()
		})
	}
	all.Wait()
	os.Exit(0)
}

// relays are what BenchmarkCost compares.
var relays = map[string]func(source, sink *net.TCPConn){
	"pump": func(source, sink *net.TCPConn) {
		Relay(context.Background(), Peer{Conn: source}, Peer{Conn: sink}, Options{})
	},
	"copy": func(source, sink *net.TCPConn) {
		var back sync.WaitGroup
		back.Go(func() { copyBlocks(source, sink) })
		copyBlocks(sink, source)
		back.Wait()
		_, _ = source.Close(), sink.Close()
	},
}

// copyBlocks is a plain relay's work: read 32 KiB at most, write them. What
// io.Copy does with two TCP connections is splice, which is not compared here.
func copyBlocks(dst, src *net.TCPConn) {
	buf := make([]byte, 32<<10)
	_, _ = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf)
	_ = dst.CloseWrite()
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure relays the load with one of the relays and returns the CPU time
// that it took for each GiB of payload.
func measure(b *testing.B, relay func(source, sink *net.TCPConn), streams, mebibytes int) time.Duration {
	b.Helper()
	from, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	to, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer to.Close()
	frames := mebibytes << 20 / loadFrame / streams
	load := exec.CommandContext(b.Context(), os.Args[0])
	load.Env = append(os.Environ(), fmt.Sprintf("%s=%v %v %d %d", loadVariable, from.Addr(), to.Addr(), streams, frames))
	if err := load.Start(); err != nil {
		b.Fatal(err)
	}
	var pairs [][2]*net.TCPConn
	for range streams {
		source, err := from.Accept()
		if err != nil {
			b.Fatal(err)
		}
		sink, err := to.Accept()
		if err != nil {
			b.Fatal(err)
		}
		pairs = append(pairs, [2]*net.TCPConn{source.(*net.TCPConn), sink.(*net.TCPConn)})
	}
	before := cpuTime(b)
	var running sync.WaitGroup
	for _, pair := range pairs {
		running.Go(func() { relay(pair[0], pair[1]) })
	}
	running.Wait()
	used := cpuTime(b) - before
	if err := load.Wait(); err != nil {
		b.Fatalf("the load failed: %v", err)
	}
	return used * (1 << 30) / time.Duration(frames*streams*loadFrame)
}

// BenchmarkCost compares the relay with a plain TCP relay, by the CPU time of
// a process that does nothing else, in turns. Read the ratio: seconds depend on
// the machine and on what else it does.
func BenchmarkCost(b *testing.B) {
	for _, streams := range []int{1, 16} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			seconds := map[string][]float64{}
			for b.Loop() {
				for name, relay := range relays {
					seconds[name] = append(seconds[name], measure(b, relay, streams, 512).Seconds())
				}
			}
			median := func(name string) float64 {
				slices.Sort(seconds[name])
				return seconds[name][len(seconds[name])/2]
			}
			for name := range relays {
				b.ReportMetric(median(name), name+"-cpu-s/GiB")
				b.ReportMetric(median(name)/median("copy"), name+"/copy")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
