package resume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"example.com/converge/pkg/pin"
)

// TestHostileFrames: a relay changes the first connection's frames. The
// connection ends, the stream goes on over the next one, and what is read is
// what was written.
func TestHostileFrames(t *testing.T) {
	var held []byte
	tests := []struct {
		name   string
		change func(n int, unit []byte) [][]byte
	}{
		{"flip a bit of the data", func(n int, unit []byte) [][]byte {
			return [][]byte{flipped(unit, headerSize)}
		}},
		{"flip a bit of the acknowledged offset", func(n int, unit []byte) [][]byte {
			return [][]byte{flipped(unit, headerSize-1)}
		}},
		{"change the type", func(n int, unit []byte) [][]byte {
			c := bytes.Clone(unit)
			c[0] = byte(typePing)
			return [][]byte{c}
		}},
		{"flip a bit of the tag", func(n int, unit []byte) [][]byte {
			return [][]byte{flipped(unit, len(unit)-1)}
		}},
		{"repeat a frame", func(n int, unit []byte) [][]byte { return [][]byte{unit, unit} }},
		{"leave a frame out", func(n int, unit []byte) [][]byte {
			if n == 4 {
				return nil
			}
			return [][]byte{unit}
		}},
		{"exchange two frames", func(n int, unit []byte) [][]byte {
			if n == 4 {
				held = unit
				return nil
			}
			return [][]byte{unit, held}
		}},
		{"cut a frame short", func(n int, unit []byte) [][]byte {
			return [][]byte{unit[:len(unit)-1], unit}
		}},
		{"inject a frame", func(n int, unit []byte) [][]byte {
			forged := header{kind: typeData, length: 4}.append(nil)
			return [][]byte{append(append(forged, "evil"...), make([]byte, tagSize)...), unit}
		}},
	}
	for _, test := range tests {
		for _, up := range []bool{true, false} {
			t.Run(test.name+map[bool]string{true: "/up", false: "/down"}[up], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					hook := func(conn, n int, unit []byte) [][]byte {
						if conn == 0 && (n == 4 || n == 5) {
							return test.change(n, unit)
						}
						return [][]byte{unit}
					}
					relay := &hostile{agent: newAgent(t, HubConfig{})}
					if up {
						relay.up = hook
					} else {
						relay.down = hook
					}
					client, server := relay.agent.open(Config{Dial: relay.dial})
					from, to := client, server
					if !up {
						from, to = server, client
					}
					for i := range 8 {
						mustWrite(t, from, string(rune('a'+i))+" line of the stream\n")
						synctest.Wait() // a frame of its own
					}
					mustClose(t, from.CloseWrite())
					got, err := io.ReadAll(to)
					if err != nil || len(got) != 8*21 || got[21] != 'b' || got[7*21] != 'h' {
						t.Errorf("read %q, %v", got, err)
					}
					if relay.count() != 2 {
						t.Errorf("%d connections were made, want 2", relay.count())
					}
				})
			})
		}
	}
}

func flipped(unit []byte, at int) []byte {
	c := bytes.Clone(unit)
	c[at] ^= 1
	return c
}

func mustClose(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestReflected: a relay sends a side's own frames back to it.
func TestReflected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := &hostile{agent: newAgent(t, HubConfig{})}
		relay.down = func(conn, n int, unit []byte) [][]byte {
			if conn == 0 && n > 0 {
				return relay.seen(&relay.seenUp, 0)[1:] // what the client sent
			}
			return [][]byte{unit}
		}
		client, server := relay.agent.open(Config{Dial: relay.dial})
		mustWrite(t, client, "to the agent")
		wantRead(t, server, "to the agent")
		mustWrite(t, server, "to the client")
		wantRead(t, client, "to the client")
		if relay.count() != 2 {
			t.Errorf("%d connections were made, want 2", relay.count())
		}
	})
}

// TestOldFrames: frames of an earlier connection are worth nothing on a later.
func TestOldFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := &hostile{agent: newAgent(t, HubConfig{})}
		relay.up = func(conn, n int, unit []byte) [][]byte {
			if conn == 1 && n > 0 {
				return relay.seen(&relay.seenUp, 0)[n : n+1]
			}
			return [][]byte{unit}
		}
		client, server := relay.agent.open(Config{Dial: relay.dial})
		mustWrite(t, client, "first")
		wantRead(t, server, "first")
		cutLink(client)
		mustWrite(t, client, "second")
		wantRead(t, server, "second")
		if relay.count() != 3 {
			t.Errorf("%d connections were made, want 3", relay.count())
		}
	})
}

// TestReplayedResume: a relay that has seen a whole resume plays it again. The
// live connection is left alone, and the session is not said to be gone: an
// honest relay may have done so too.
func TestReplayedResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := &hostile{agent: newAgent(t, HubConfig{})}
		client, server := relay.agent.open(Config{Dial: relay.dial})
		mustWrite(t, client, "x")
		wantRead(t, server, "x")
		cutLink(client)
		mustWrite(t, client, "y")
		wantRead(t, server, "y")
		synctest.Wait()
		for _, frames := range []int{1, 2} {
			conn, err := relay.agent.dial(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for _, unit := range relay.seen(&relay.seenUp, 1)[:frames] {
					_, _ = conn.Write(unit)
				}
			}()
			_, err = answer(conn, msgResumed)
			wantError(t, "a replayed resume", err, io.ErrUnexpectedEOF)
			_ = conn.Close()
		}
		if !server.Attached() || !client.Attached() || relay.count() != 2 {
			t.Errorf("the live connection was disturbed: %d connections", relay.count())
		}
		mustWrite(t, client, "z")
		wantRead(t, server, "z")
	})
}

// TestStolenToken: somebody who knows the token, and not the key, is not let
// in and does not disturb; not even with a genuine message that he changed.
func TestStolenToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		client, server := a.open(Config{})
		for name, m := range map[string]resumption{
			"no key":        {version: version, token: client.token, attempt: 9},
			"another token": {version: version, token: [tokenSize]byte{1}, attempt: 9},
		} {
			conn, _ := a.dial(context.Background())
			if _, err := conn.Write(encode(msgResume, m.encode())); err != nil {
				t.Fatal(err)
			}
			if body, err := answer(conn, msgResumed); err == nil {
				t.Errorf("%s: got the answer %x", name, body)
			}
			_ = conn.Close()
		}
		mustWrite(t, client, "still here")
		wantRead(t, server, "still here")
	})
}

// TestHandedOver: a relay gives a resumed connection to somebody else, who has
// everything that went by and not the key.
func TestHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := &hostile{agent: newAgent(t, HubConfig{})}
		var stolen []byte // the agent's frames, replayed to the thief
		relay.up = func(conn, n int, unit []byte) [][]byte {
			if conn == 1 && n > 0 { // the thief speaks in the client's place
				forged := header{kind: typeData, length: 4, acked: 0}.append(nil)
				return [][]byte{append(append(forged, "evil"...), make([]byte, tagSize)...)}
			}
			return [][]byte{unit}
		}
		relay.down = func(conn, n int, unit []byte) [][]byte {
			if conn == 1 && n > 0 {
				stolen = append(stolen, unit...)
				return nil
			}
			return [][]byte{unit}
		}
		client, server := relay.agent.open(Config{Dial: relay.dial})
		cutLink(client)
		mustWrite(t, client, "from the client")
		wantRead(t, server, "from the client")
		mustWrite(t, server, "from the agent")
		wantRead(t, client, "from the agent")
		if relay.count() != 3 {
			t.Errorf("%d connections were made, want 3", relay.count())
		}
	})
}

// TestExchangedSessions: a relay joins two clients' resumed connections
// crosswise from their first frame on.
func TestExchangedSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		first, second := &hostile{agent: a}, &hostile{agent: a}
		client1, server1 := a.open(Config{Dial: first.dial})
		client2, server2 := a.open(Config{Dial: second.dial})
		mustWrite(t, client2, "two")
		wantRead(t, server2, "two")
		first.up = func(conn, n int, unit []byte) [][]byte {
			if conn == 1 && n > 0 {
				return second.seen(&second.seenUp, 0)[1:]
			}
			return [][]byte{unit}
		}
		cutLink(client1)
		mustWrite(t, client1, "one")
		wantRead(t, server1, "one")
		if first.count() != 3 {
			t.Errorf("%d connections were made, want 3", first.count())
		}
	})
}

// TestPin: somebody else answers the first handshake.
func TestPin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		real, impostor := newAgent(t, HubConfig{}), newAgent(t, HubConfig{})
		for name, dial := range map[string]func(context.Context) (net.Conn, error){
			"an impostor with a key of its own": impostor.dial,
			"an impostor that shows the real key": (&hostile{agent: impostor, down: func(conn, n int, unit []byte) [][]byte {
				if n > 0 {
					return [][]byte{unit}
				}
				w, err := parseWelcome(unit[prefaceHeader:])
				if err != nil {
					t.Error(err)
				}
				w.hostKey = real.signer.PublicKey().Marshal()
				return [][]byte{encode(msgWelcome, w.encode())}
			}}).dial,
		} {
			_, err := Client(context.Background(), Config{Dial: dial, Pin: real.pin()})
			if !errors.Is(err, ErrPin) && !errors.Is(err, ErrSignature) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		// Without the pin nothing tells one from the other: spec.md says so.
		client, err := Client(context.Background(), Config{Dial: impostor.dial})
		if err != nil {
			t.Fatal(err)
		}
		_ = (<-impostor.streams).Close()
		mustClose(t, client.Close())
		other := pin.Of(impostor.signer.PublicKey())
		_, err = Client(context.Background(), Config{Dial: real.dial, Pin: other})
		wantError(t, "another agent's pin", err, ErrPin)
	})
}

// TestChangedHandshake: the signature covers both messages, so that no change
// of either goes unnoticed by a client, with the pin or without.
func TestChangedHandshake(t *testing.T) {
	a := newAgent(t, HubConfig{})
	for _, test := range []struct {
		name string
		up   bool
		size int
	}{{"hello", true, 71}, {"welcome", false, 228}} {
		for at := 0; at < test.size; at += 3 {
			tried := false
			change := func(conn, n int, unit []byte) [][]byte {
				if n > 0 || tried {
					return [][]byte{unit}
				}
				tried = true
				return [][]byte{flipped(unit, prefaceHeader+at)}
			}
			relay := &hostile{agent: a}
			if test.up {
				relay.up = change
			} else {
				relay.down = change
			}
			client, err := Client(context.Background(), Config{Dial: relay.dial})
			if err == nil {
				t.Errorf("byte %d of the %s was changed and nobody noticed", at, test.name)
				client.fail(nil)
				_ = client.Close()
			}
			if !tried {
				t.Fatalf("byte %d of the %s was not changed", at, test.name)
			}
		}
	}
	for len(a.streams) > 0 { // the agent has not noticed yet
		<-a.streams
	}
}

// TestChangedResume: who changes the handshake of a resumed connection costs
// the stream one attempt.
func TestChangedResume(t *testing.T) {
	for _, test := range []struct {
		name     string
		up       bool
		from, to int // of the body; who changes the token makes it an unknown one
	}{{"resume", true, 1 + tokenSize, 97}, {"resumed", false, 0, 72}} {
		for at := test.from; at < test.to; at += 5 {
			synctest.Test(t, func(t *testing.T) {
				change := func(conn, n int, unit []byte) [][]byte {
					if conn == 1 && n == 0 {
						return [][]byte{flipped(unit, prefaceHeader+at)}
					}
					return [][]byte{unit}
				}
				relay := &hostile{agent: newAgent(t, HubConfig{})}
				if test.up {
					relay.up = change
				} else {
					relay.down = change
				}
				client, server := relay.agent.open(Config{Dial: relay.dial})
				mustWrite(t, client, "one ")
				wantRead(t, server, "one ")
				cutLink(client)
				mustWrite(t, client, "two")
				wantRead(t, server, "two")
				if relay.count() != 3 || client.attempt != 2 {
					t.Errorf("byte %d of the %s: %d connections were made, want 3", at, test.name, relay.count())
				}
			})
		}
	}
}

// TestDowngrade: an older version or the other suite is not to be had by
// changing a message.
func TestDowngrade(t *testing.T) {
	a := newAgent(t, HubConfig{})
	relay := &hostile{agent: a, up: func(conn, n int, unit []byte) [][]byte {
		c := bytes.Clone(unit)
		c[prefaceHeader+2] ^= 1 // the client's wish for AES
		return [][]byte{c}
	}}
	_, err := Client(context.Background(), Config{Dial: relay.dial, Pin: a.pin()})
	wantError(t, "the wish for a suite changed", err, ErrSignature)

	relay = &hostile{agent: a, up: func(conn, n int, unit []byte) [][]byte {
		c := bytes.Clone(unit)
		c[prefaceHeader], c[prefaceHeader+1] = 7, 9
		return [][]byte{c}
	}}
	_, err = Client(context.Background(), Config{Dial: relay.dial, Pin: a.pin()})
	wantError(t, "no common version", err, ErrVersion)
}

// TestKeysDiffer: no two uses share a key.
func TestKeysDiffer(t *testing.T) {
	key, public, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := agree(key, public[:], make([]byte, 32), suiteGMAC)
	if err != nil {
		t.Fatal(err)
	}
	tags := [][]byte{secret.clientMAC, secret.agentMAC, secret.root}
	for _, transcript := range []string{"one", "two"} {
		client, agent, err := secret.connection([]byte(transcript))
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range []*guard{client, agent} {
			for range 2 {
				frame := header{kind: typeAck}.append(nil)
				frame = append(frame, make([]byte, tagSize)...)
				g.seal(frame)
				tags = append(tags, bytes.Clone(frame[headerSize:]))
			}
		}
	}
	for i, tag := range tags {
		if slices.ContainsFunc(tags[i+1:], func(other []byte) bool { return bytes.Equal(other, tag) }) {
			t.Errorf("key or tag %d comes twice", i)
		}
	}
	if _, err := agree(key, make([]byte, 32), nil, suiteGMAC); err == nil {
		t.Error("a key of zero bits was accepted")
	}
}
