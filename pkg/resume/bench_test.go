package resume

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/frame"
)

// chain is a websocket connection from a client through a relay to an agent,
// all in this process, over TCP.
func chain(b *testing.B) (client, agent net.Conn) {
	b.Helper()
	pair := func() (net.Conn, net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		near, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		return near, far
	}
	a, relayA := pair()
	z, relayZ := pair()
	done := make(chan struct{})
	go func() {
		defer close(done)
		frame.Relay(context.Background(), frame.Peer{Conn: relayA}, frame.Peer{Conn: relayZ}, frame.Options{})
	}()
	b.Cleanup(func() { <-done })
	return frame.Client(a, nil, frame.Options{}), frame.Client(z, nil, frame.Options{})
}

// variants are the two ends of a stream, without and with resumption.
func variants(b *testing.B) (names [2]string, clients, agents [2]net.Conn) {
	b.Helper()
	clients[0], agents[0] = chain(b)
	near, far := chain(b)
	a := newAgent(b, HubConfig{})
	a.serve(far)
	clients[1], agents[1] = a.open(Config{Dial: func(context.Context) (net.Conn, error) { return near, nil }})
	b.Cleanup(func() {
		for i := range clients {
			var both sync.WaitGroup
			both.Go(func() { _ = clients[i].Close() })
			_ = agents[i].Close()
			both.Wait()
		}
	})
	return [2]string{"plain", "resume"}, clients, agents
}

// sums adds up what the rounds of a variant took.
type sums struct {
	wall, cpu time.Duration
	bytes     int
}

func (s *sums) round(bytes int, f func()) {
	start, cpu := time.Now(), cpuTime()
	f()
	s.wall += time.Since(start)
	s.cpu += cpuTime() - cpu
	s.bytes += bytes
}

func report(b *testing.B, names [2]string, s [2]sums) {
	b.Helper()
	var speed, cost [2]float64
	for i, name := range names {
		speed[i] = float64(s[i].bytes) / (1 << 20) / s[i].wall.Seconds()
		cost[i] = s[i].cpu.Seconds() * (1 << 30) / float64(s[i].bytes)
		b.ReportMetric(speed[i], name+"-MiB/s")
		b.ReportMetric(cost[i], name+"-cpu-s/GiB")
	}
	b.ReportMetric(speed[1]/speed[0], "speed-ratio")
	b.ReportMetric(cost[1]/cost[0], "cpu-ratio")
	b.ReportMetric(0, "ns/op")
}

const benchBytes = 32 << 20

// BenchmarkThroughput moves bytes with and without resumption by turns. split
// is how x/crypto/ssh writes its packets.
func BenchmarkThroughput(b *testing.B) {
	for _, sizes := range [][]int{{32 << 10}, {4 << 10, 28<<10 + 64}} {
		b.Run(fmt.Sprint(sizes), func(b *testing.B) {
			names, clients, agents := variants(b)
			var s [2]sums
			buf := make([]byte, 64<<10)
			for b.Loop() {
				for i := range names {
					s[i].round(benchBytes, func() {
						var writer sync.WaitGroup
						writer.Go(func() {
							out := make([]byte, 32<<10)
							for left, n := benchBytes, 0; left > 0; n++ {
								size := min(left, sizes[n%len(sizes)])
								if _, err := clients[i].Write(out[:size]); err != nil {
									b.Error(err)
									return
								}
								left -= size
							}
						})
						for left := benchBytes; left > 0; {
							n, err := agents[i].Read(buf[:min(left, len(buf))])
							if err != nil {
								b.Error(err)
								break
							}
							left -= n
						}
						writer.Wait()
					})
				}
			}
			report(b, names, s)
		})
	}
}

// BenchmarkSSH is BenchmarkThroughput inside an SSH connection with AES-GCM:
// closer to the whole chain, of which OpenSSH and the disk are missing.
func BenchmarkSSH(b *testing.B) {
	names, clients, agents := variants(b)
	var s [2]sums
	var channels [2]ssh.Channel
	for i := range names {
		channels[i] = sshChannel(b, clients[i], agents[i])
	}
	out := make([]byte, 64<<10)
	for b.Loop() {
		for i, ch := range channels {
			s[i].round(benchBytes, func() {
				for left := benchBytes; left > 0; left -= len(out) {
					if _, err := ch.Write(out); err != nil {
						b.Error(err)
						return
					}
				}
				if _, err := io.ReadFull(ch, out[:1]); err != nil {
					b.Error(err)
				}
			})
		}
	}
	report(b, names, s)
}

// sshChannel opens a channel whose far end answers every benchBytes with one.
func sshChannel(b *testing.B, client, agent net.Conn) ssh.Channel {
	b.Helper()
	var server sync.WaitGroup
	config := ssh.Config{Ciphers: []string{ssh.CipherAES128GCM}}
	server.Go(func() {
		cfg := &ssh.ServerConfig{Config: config, NoClientAuth: true}
		cfg.AddHostKey(newSigner(b))
		_, chans, reqs, err := ssh.NewServerConn(agent, cfg)
		if err != nil {
			b.Error(err)
			return
		}
		go ssh.DiscardRequests(reqs)
		for c := range chans {
			ch, reqs, err := c.Accept()
			if err != nil {
				return
			}
			go ssh.DiscardRequests(reqs)
			server.Go(func() {
				for {
					if _, err := io.CopyN(io.Discard, ch, benchBytes); err != nil {
						return
					}
					if _, err := ch.Write([]byte{1}); err != nil {
						return
					}
				}
			})
		}
	})
	conn, chans, reqs, err := ssh.NewClientConn(client, "bench", &ssh.ClientConfig{
		Config: config, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		b.Fatal(err)
	}
	c := ssh.NewClient(conn, chans, reqs)
	ch, requests, err := c.OpenChannel("bench", nil)
	if err != nil {
		b.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	b.Cleanup(func() { _ = c.Close(); server.Wait() })
	return ch
}

// BenchmarkEcho sends a key and waits for its echo, by turns.
func BenchmarkEcho(b *testing.B) {
	names, clients, agents := variants(b)
	for i := range names {
		var echo sync.WaitGroup
		echo.Go(func() { _, _ = io.Copy(struct{ io.Writer }{agents[i]}, struct{ io.Reader }{agents[i]}) })
		b.Cleanup(func() { _ = clients[i].Close(); _ = agents[i].Close(); echo.Wait() })
	}
	var times [2][]time.Duration
	key := make([]byte, 36) // as long as SSH makes it
	for b.Loop() {
		for i := range names {
			start := time.Now()
			if _, err := clients[i].Write(key); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(clients[i], key); err != nil {
				b.Fatal(err)
			}
			times[i] = append(times[i], time.Since(start))
		}
	}
	var median [2]float64
	for i, name := range names {
		slices.Sort(times[i])
		median[i] = float64(times[i][len(times[i])/2].Nanoseconds()) / 1000
		b.ReportMetric(median[i], name+"-p50-µs")
	}
	b.ReportMetric(median[1]/median[0], "p50-ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkTags is what authenticating 32 KiB costs, once with encryption for
// comparison: why the frames are authenticated and no more.
func BenchmarkTags(b *testing.B) {
	for _, s := range []suite{suiteGMAC, suitePoly1305} {
		aead, err := s.new(make([]byte, 32))
		if err != nil {
			b.Fatal(err)
		}
		g := &guard{aead: aead}
		frame := header{kind: typeData, length: maxData}.append(make([]byte, 0, maxFrame))[:maxFrame]
		name := map[suite]string{suiteGMAC: "AES-GCM", suitePoly1305: "ChaCha20-Poly1305"}[s]
		b.Run(name+"/authenticate", func(b *testing.B) {
			b.SetBytes(maxData)
			for b.Loop() {
				g.seal(frame)
			}
		})
		b.Run(name+"/encrypt", func(b *testing.B) {
			b.SetBytes(maxData)
			for b.Loop() {
				body := frame[headerSize:]
				aead.Seal(body[:0], g.next(), body[:maxData], frame[:headerSize])
			}
		})
	}
}

// BenchmarkIdle is the memory that an idle stream holds, both ends and the
// pipe between them included.
func BenchmarkIdle(b *testing.B) {
	a := newAgent(b, HubConfig{})
	const streams = 200
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range streams {
		client, server := a.open(Config{})
		mustWrite(b, client, "x")
		wantRead(b, server, "x")
		for held := true; held; runtime.Gosched() { // until it is acknowledged
			client.mu.Lock()
			held = client.core.out.len() > 0
			client.mu.Unlock()
		}
	}
	runtime.GC()
	runtime.GC() // twice: what pools hold goes in two steps
	runtime.ReadMemStats(&after)
	held := after.HeapInuse + after.StackInuse - before.HeapInuse - before.StackInuse
	for b.Loop() {
	}
	b.ReportMetric(float64(held)/streams/1024, "KiB/stream")
	b.ReportMetric(0, "ns/op")
}
