package frame

import "time"

// Defaults and limits of a connection.
const (
	// DefaultPing is the mean interval of pings; idle proxies cut after 50 s.
	DefaultPing = 20 * time.Second
	// missed is how many ping intervals a peer may be silent.
	missed = 3
	// DefaultMaxFrame is the longest accepted frame in bytes. Nothing is
	// allocated for it: payload is passed on as it comes.
	DefaultMaxFrame = 16 << 20
	// readBuffer is the size of a connection's buffer for Read in bytes.
	readBuffer = 32 << 10
	// writeChunk is the longest payload that Write puts in a frame, in bytes:
	// 128 KiB and what four SSH packets of a quarter of that have around it.
	writeChunk = pumpSize - maxHeader
	// closeWrite bounds the write of a close frame that ends a connection.
	closeWrite = 5 * time.Second
	// closeWait bounds how long Close waits for the peer's close frame.
	closeWait = time.Second
)

// Options tune a connection or a relay. The zero value is useful.
type Options struct {
	// Ping is the mean interval of keep-alive pings, jittered by a quarter so
	// that a thousand connections do not ping at once. 0 is DefaultPing, a
	// negative value turns pings and the silence limit off.
	Ping time.Duration
	// MaxFrame is the longest accepted data frame in bytes; 0 is
	// DefaultMaxFrame. A longer one fails the connection with 1009.
	MaxFrame int64
	// Poller takes a relay's or port's connections over while they are idle,
	// so that these need no goroutine. It may be nil.
	Poller *Poller
}

func (o Options) ping() time.Duration {
	if o.Ping == 0 {
		return DefaultPing
	}
	return max(o.Ping, 0)
}

// silence is how long one Read waits for a peer that sends nothing at all; 0
// is for ever. Answers to our pings break it, so only a dead path reaches it.
func (o Options) silence() time.Duration { return missed * o.ping() }

func (o Options) maxFrame() int64 {
	if o.MaxFrame == 0 {
		return DefaultMaxFrame
	}
	return o.MaxFrame
}
