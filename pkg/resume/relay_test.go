package resume

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// hostile is a relay that understands what it carries, as far as it can
// without keys. A unit is one message of a handshake, the first of each
// direction, or one frame.
type hostile struct {
	agent *agent
	// up and down say what is passed on in place of a unit: conn counts the
	// connections and n the units of that direction, from 0. nil passes it.
	up, down func(conn, n int, unit []byte) [][]byte
	// dialled, if not nil, may refuse a connection.
	dialled func(conn int) error

	mu    sync.Mutex
	conns int
	// What went by, in both directions, for replays.
	seenUp, seenDown [][][]byte
}

func (h *hostile) dial(context.Context) (net.Conn, error) {
	h.mu.Lock()
	conn := h.conns
	h.conns++
	h.seenUp, h.seenDown = append(h.seenUp, nil), append(h.seenDown, nil)
	h.mu.Unlock()
	if h.dialled != nil {
		if err := h.dialled(conn); err != nil {
			return nil, err
		}
	}
	near, relayNear := net.Pipe()
	far, relayFar := net.Pipe()
	h.agent.serve(far)
	h.agent.serving.Go(func() { h.pump(conn, relayFar, relayNear, h.up, h.seenUp) })
	h.agent.serving.Go(func() { h.pump(conn, relayNear, relayFar, h.down, h.seenDown) })
	return near, nil
}

func (h *hostile) pump(conn int, to, from net.Conn, hook func(int, int, []byte) [][]byte, seen [][][]byte) {
	defer to.Close()
	defer from.Close()
	for n := 0; ; n++ {
		unit, err := readUnit(from, n == 0)
		if err != nil {
			return
		}
		h.mu.Lock()
		seen[conn] = append(seen[conn], unit)
		h.mu.Unlock()
		pass := [][]byte{unit}
		if hook != nil {
			pass = hook(conn, n, unit)
		}
		for _, p := range pass {
			if _, err := to.Write(p); err != nil {
				return
			}
		}
	}
}

func readUnit(r io.Reader, preface bool) ([]byte, error) {
	size := headerSize
	if preface {
		size = prefaceHeader
	}
	unit := make([]byte, size)
	if _, err := io.ReadFull(r, unit); err != nil {
		return nil, err
	}
	rest := 0
	if preface {
		rest = int(binary.BigEndian.Uint16(unit[5:]))
	} else {
		rest = int(binary.BigEndian.Uint16(unit[2:])) + tagSize
	}
	unit = append(unit, make([]byte, rest)...)
	_, err := io.ReadFull(r, unit[size:])
	return unit, err
}

// seen returns the units of a direction of a connection so far.
func (h *hostile) seen(direction *[][][]byte, conn int) [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([][]byte(nil), (*direction)[conn]...)
}

// count is how many connections were dialled.
func (h *hostile) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.conns
}
