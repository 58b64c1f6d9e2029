package resume

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// Protocol names what is spoken here, for wherever two ends agree on speaking
// it, such as a websocket's subprotocol.
const Protocol = "converge.resume.v1"

// Defaults and limits.
const (
	// DefaultWindow is how long a session waits for a new connection.
	DefaultWindow = 5 * time.Minute
	// DefaultBuffer bounds what a direction holds, in bytes: twice the window
	// of an SSH channel.
	DefaultBuffer = 4 << 20
	// MinBuffer and MaxBuffer are the limits of Config.Buffer.
	MinBuffer = minBlock
	MaxBuffer = maxBlock
	// DefaultPing is the mean interval of pings. With it a dead path is
	// noticed within a minute.
	DefaultPing = 15 * time.Second
	// DefaultLinger is how long a client's Close waits.
	DefaultLinger = 5 * time.Second

	// closeWait is how long a Hub's Close waits for goroutines beyond its
	// context.
	closeWait = 100 * time.Millisecond
	// handshakeWait bounds a handshake, and the time until the first frame.
	handshakeWait = 10 * time.Second
	// attemptWait bounds one attempt to get a new connection, handshake
	// included: the network may have changed under it.
	attemptWait = 15 * time.Second
	// noticeAfter is how long a connection must be away for it to be news.
	noticeAfter = time.Second
	// The mean pause between attempts, after the first, which is immediate,
	// grows by half each time: after an outage the wait is half as long again
	// at most, and never above the longest pause.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
)

// Why a stream ends. Each is wrapped by the errors of Read and Write.
var (
	// ErrExpired: there was no connection for the whole window.
	ErrExpired = errors.New("the connection was lost and did not come back in time")
	// ErrGone: the agent does not know the session any more.
	ErrGone = errors.New("the session is gone, because the agent has ended it or was restarted: connect again")
	// ErrVersion: the two ends have no version of the protocol in common.
	ErrVersion = errors.New("the agent speaks another version of the resumable stream: download the client from the agent's server again")
	// ErrPin: the far end is not the agent whose key is pinned.
	ErrPin = errors.New("the far end is not the agent that the URL names: somebody in between may be listening, or the agent is a new one: copy the line from the job's log again")
	// ErrSignature: the far end's signature is wrong.
	ErrSignature = errors.New("the far end could not prove that it has the host key that it shows: somebody in between may be listening")
	// ErrEvicted: too many sessions wait for their clients.
	ErrEvicted = errors.New("the session was given up while its connection was lost: too many others were waiting as well")
	// ErrUnsent: Close could not deliver everything.
	ErrUnsent = errors.New("the far end has not taken everything that was sent")
	// ErrFull: the agent has no room for a new stream.
	ErrFull = errors.New("too many clients are connected to the agent: try again when one has left")
	// ErrHubClosed: the Hub was closed.
	ErrHubClosed = errors.New("the agent is ending")
)

// expired is ErrExpired with what is known.
func expired(window time.Duration, last error) error {
	if last == nil {
		return fmt.Errorf("%w, which is %v", ErrExpired, window)
	}
	return fmt.Errorf("%w, which is %v: %w", ErrExpired, window, last)
}

// State is whether a stream flows.
type State int

const (
	// Flowing streams have a connection.
	Flowing State = iota
	// Stalled streams wait for a new one.
	Stalled
)

func (s State) String() string {
	if s == Stalled {
		return "stalled"
	}
	return "flowing"
}

// Notice says that a stream has stalled, or is back.
type Notice struct {
	State State
	// Err is why the last connection was lost. What it quotes may be a far
	// end's or relay's words: hostile until made printable.
	Err error
	// Since is when it was lost.
	Since time.Time
	// Window is how long a stalled stream waits from then on.
	Window time.Duration
}

// limits are what Config and HubConfig have in common, made definite.
func limits(window, ping *time.Duration, buffer *int) error {
	switch {
	case *window < 0:
		return fmt.Errorf("the resume window is %v: it must not be negative", *window)
	case *buffer != 0 && (*buffer < MinBuffer || *buffer > MaxBuffer):
		return fmt.Errorf("the resume buffer has %d bytes: it must have from %d to %d", *buffer, MinBuffer, MaxBuffer)
	case *ping < 0:
		return fmt.Errorf("the ping interval is %v: it must not be negative", *ping)
	}
	if *window == 0 {
		*window = DefaultWindow
	}
	if *buffer == 0 {
		*buffer = DefaultBuffer
	}
	if *ping == 0 {
		*ping = DefaultPing
	}
	return nil
}

// checkPeerBuffer refuses a peer that cannot hold the first send window.
func checkPeerBuffer(n uint32) (int, error) {
	if n < MinBuffer {
		return 0, fmt.Errorf("%w: a buffer of %d bytes", errPreface, n)
	}
	return int(min(n, MaxBuffer)), nil
}

// bound limits what is done on a connection. The function that it returns
// takes the limit away.
func bound(conn net.Conn) (done func()) {
	_ = conn.SetDeadline(time.Now().Add(handshakeWait))
	return func() { _ = conn.SetDeadline(time.Time{}) }
}
