//go:build linux

package sshd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// kexInit is a packet as a client begins with.
func kexInit(p proposal) []byte {
	payload := ssh.Marshal(&p)
	padding := 8 - (5+len(payload))%8 + 4
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	b = append(b, byte(padding))
	b = append(b, payload...)
	return append(b, make([]byte, padding)...)
}

const line = "SSH-2.0-Test_1.0 comment\r\n"

// met is a front whose other end is the test's.
type met struct {
	*front
	client   net.Conn
	proposed chan *proposal
	wg       sync.WaitGroup
}

// meet starts to greet a client. It is used in a synctest bubble.
func meet(t *testing.T) *met {
	t.Helper()
	client, nc := net.Pipe()
	m := &met{client: client, proposed: make(chan *proposal, 1)}
	m.front = &front{Conn: nc, start: m.wg.Go}
	m.wg.Go(func() { m.proposed <- m.greet("SSH-2.0-Server") })
	t.Cleanup(func() {
		client.Close()
		nc.Close()
		m.wg.Wait()
	})
	got := make([]byte, len("SSH-2.0-Server\r\n"))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "SSH-2.0-Server\r\n" {
		t.Fatalf("%q %v", got, err)
	}
	return m
}

// rest is what the library reads, up to so many bytes.
func (m *met) rest(t *testing.T, n int) string {
	t.Helper()
	got := make([]byte, n)
	if n, err := io.ReadFull(m.front, got); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	return string(got)
}

func TestFrontReads(t *testing.T) {
	want := proposal{EncryptionClientServer: []string{"a", "b"}, KexAlgorithms: []string{"k"}}
	hello := append([]byte(line), kexInit(want)...)
	for name, cut := range map[string]int{"at once": len(hello), "by bytes": 1, "by pieces": 11} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := meet(t)
				sent := append(slices.Clone(hello), "more"...)
				m.wg.Go(func() {
					for piece := range slices.Chunk(sent, cut) {
						if _, err := m.client.Write(piece); err != nil {
							t.Error(err)
						}
					}
				})
				p := <-m.proposed
				if p == nil || !slices.Equal(p.EncryptionClientServer, want.EncryptionClientServer) ||
					!slices.Equal(p.KexAlgorithms, want.KexAlgorithms) {
					t.Fatalf("%+v", p)
				}
				if got := m.rest(t, len(sent)); got != string(sent) {
					t.Errorf("the library reads %q", got)
				}
			})
		})
	}
}

// Whatever is odd is left to the library, byte for byte.
func TestFrontOdd(t *testing.T) {
	for name, sent := range map[string]string{
		"another protocol": "GET / HTTP/1.1\r\n",
		"a line before":    "hello\r\n" + line,
		"an endless line":  "SSH-2.0-" + strings.Repeat("x", 300),
		"a huge packet":    line + "\xff\xff\xff\xff",
		"an empty packet":  line + "\x00\x00\x00\x00",
		"only padding":     line + "\x00\x00\x00\x05\x04\x00\x00\x00\x00",
		"another message":  line + "\x00\x00\x00\x06\x04\x02\x00\x00\x00\x00",
		"a cut message":    line + string([]byte{0, 0, 0, 12, 4, 20, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := meet(t)
				start := time.Now()
				if _, err := io.WriteString(m.client, sent); err != nil {
					t.Fatal(err)
				}
				if p := <-m.proposed; p != nil {
					t.Errorf("%+v", p)
				}
				if waited := time.Since(start); waited != 0 {
					t.Errorf("it took %s", waited)
				}
				if got := m.rest(t, len(sent)); got != sent {
					t.Errorf("the library reads %q", got)
				}
			})
		})
	}
}

// A client that wants to see the server's KEXINIT first is served after a
// while, and what it sends then arrives.
func TestFrontPatience(t *testing.T) {
	for name, begun := range map[string]string{"nothing": "", "half a packet": "\x00\x00\x04"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := meet(t)
				time.Sleep(time.Hour) // a client may think before its first line
				start := time.Now()
				if _, err := io.WriteString(m.client, line+begun); err != nil {
					t.Fatal(err)
				}
				if p := <-m.proposed; p != nil {
					t.Errorf("%+v", p)
				}
				if waited := time.Since(start); waited != proposalWait {
					t.Errorf("it waited %s, want %s", waited, proposalWait)
				}
				m.wg.Go(func() {
					for _, text := range []string{"later", " and later"} {
						if _, err := io.WriteString(m.client, text); err != nil {
							t.Error(err)
						}
					}
				})
				want := line + begun + "later and later"
				if got := m.rest(t, len(want)); got != want {
					t.Errorf("the library reads %q", got)
				}
			})
		})
	}
}

// The end of a connection ends the wait, and is told after what came before.
func TestFrontEnd(t *testing.T) {
	for name, sent := range map[string]string{"at once": "", "in the line": "SSH-2", "after it": line} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := meet(t)
				if _, err := io.WriteString(m.client, sent); err != nil {
					t.Fatal(err)
				}
				m.client.Close()
				if p := <-m.proposed; p != nil {
					t.Errorf("%+v", p)
				}
				got, err := io.ReadAll(m.front)
				if err != nil || string(got) != sent {
					t.Errorf("%q %v", got, err)
				}
				if _, err := m.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("once more: %v", err)
				}
			})
		})
	}
}

// What the library says first is not said twice, and nothing else is lost.
func TestFrontSpeaksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := meet(t)
		if _, err := io.WriteString(m.client, "x"); err != nil {
			t.Fatal(err)
		}
		<-m.proposed
		m.wg.Go(func() {
			for _, text := range []string{"SSH-2.0-Server\r\n", "SSH-2.0-Server\r\n"} {
				if n, err := io.WriteString(m.front, text); n != len(text) || err != nil {
					t.Errorf("%d %v", n, err)
				}
			}
			m.front.Close()
		})
		if got, err := io.ReadAll(m.client); err != nil || string(got) != "SSH-2.0-Server\r\n" {
			t.Errorf("%q %v", got, err)
		}
		other := &front{Conn: m.Conn, sent: []byte("one\r\n")}
		if _, err := other.Write([]byte("two\r\n")); !errors.Is(err, errSequence) {
			t.Errorf("another identification: %v", err)
		}
	})
}

// FuzzOpening looks at what strangers send first. What can be read of it has
// been sent, and whoever can agree with all that the server can do can agree
// with what it is offered.
func FuzzOpening(f *testing.F) {
	f.Add([]byte(line), true)
	f.Add(append([]byte(line), kexInit(proposal{
		KexAlgorithms:          []string{curveLibSSH, "ecdh-sha2-nistp256"},
		EncryptionClientServer: []string{"chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com"},
		EncryptionServerClient: []string{"aes128-gcm@openssh.com", "aes256-ctr"},
		MACClientServer:        []string{"hmac-sha2-256"},
		MACServerClient:        []string{"hmac-sha2-256-etm@openssh.com"},
	})...), false)
	f.Fuzz(func(t *testing.T, data []byte, aes bool) {
		p, state := parseOpening(data)
		if (p != nil) != (state == openingRead) {
			t.Fatalf("%v in state %d", p, state)
		}
		if len(data) > maxIdentification+4+maxProposal && state != openingRead && state != openingOdd {
			t.Errorf("%d bytes are not enough", len(data))
		}
		if p == nil {
			return
		}
		for _, name := range slices.Concat(p.KexAlgorithms, p.EncryptionClientServer, p.MACServerClient) {
			if !bytes.Contains(data, []byte(name)) {
				t.Errorf("%q was not sent", name)
			}
		}
		if agree(p, fullOffer()) && !agree(p, offerFor(p, aes)) {
			t.Errorf("%+v is left without %+v", p, offerFor(p, aes))
		}
	})
}

// agree reports whether a client and an offer go together, as RFC 4253 §7.1
// and the library's rule that AEAD ciphers need no MAC have it.
func agree(p *proposal, o offer) bool {
	direction := func(ciphers, macs []string) bool {
		i := slices.IndexFunc(ciphers, func(name string) bool { return slices.Contains(o.ciphers, name) })
		return i >= 0 && (slices.Contains(slices.Concat(gcm, chacha), ciphers[i]) || common(macs, o.macs))
	}
	kex := common(p.KexAlgorithms, o.kex) ||
		slices.Contains(p.KexAlgorithms, curveLibSSH) && slices.Contains(o.kex, ssh.KeyExchangeCurve25519)
	return kex && direction(p.EncryptionClientServer, p.MACClientServer) &&
		direction(p.EncryptionServerClient, p.MACServerClient)
}
