package frame

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"testing"
)

// subject is what a case is run against: it sends everything back.
type subject struct {
	name string
	// server says that the subject is the server's end, so that the fuzzer
	// masks.
	server bool
	// start gives the fuzzer's connection, and a function that waits for the
	// subject's end and says what was wrong behind it.
	start func(t *testing.T) (net.Conn, func(want refDecoded) error)
}

var subjects = []subject{
	{"server", true, func(t *testing.T) (net.Conn, func(refDecoded) error) { return startConn(t, Server) }},
	{"client", false, func(t *testing.T) (net.Conn, func(refDecoded) error) { return startConn(t, Client) }},
	{"relay", true, startEchoRelay},
}

// startConn sends back what a Conn reads, as a program would.
func startConn(t *testing.T, open func(net.Conn, io.Reader, Options) *Conn) (net.Conn, func(refDecoded) error) {
	raw, nc := tcpPair(t)
	conn := open(nc, nil, quiet)
	got := make(chan error, 1)
	go func() {
		_, err := io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
		_ = conn.Close()
		got <- err
	}()
	return raw, func(want refDecoded) error {
		err := <-got
		var violation *ProtocolError
		var closed *CloseError
		switch {
		case want.end == refFailed:
			if !errors.As(err, &violation) || violation.Code != want.code {
				return fmt.Errorf("Read ended with %v, want code %d", err, want.code)
			}
		case want.end == refOpen, want.code == 1000, want.code == 1001, want.code == 1005:
			return err
		case !errors.As(err, &closed) || closed.Code != want.code || closed.Reason != want.reason:
			return fmt.Errorf("Read ended with %v, want code %d", err, want.code)
		}
		return nil
	}
}

// startEchoRelay has a reference peer send everything back through a relay.
func startEchoRelay(t *testing.T) (net.Conn, func(refDecoded) error) {
	a, peerA := tcpPair(t)
	b, peerB := tcpPair(t)
	stats := make(chan Stats, 1)
	go func() { stats <- Relay(context.Background(), Peer{Conn: peerA}, Peer{Conn: peerB}, quiet) }()
	far := newRefPeer(b, true, 2)
	echoed := async(func() error { defer b.Close(); return far.echo() })
	return a, func(want refDecoded) error {
		err := errors.Join(<-echoed)
		if got := <-stats; got.AToB != int64(len(want.payload)) {
			err = errors.Join(err, fmt.Errorf("counted %d octets", got.AToB))
		}
		code, reason := want.code, want.reason
		switch want.end {
		case refFailed:
			code, reason = CloseInternalError, far.reason
		case refOpen: // the fuzzer closes
			code, reason = CloseNormal, ""
		}
		if !bytes.Equal(far.data, want.payload) || !far.closed || far.code != code || far.reason != reason {
			err = errors.Join(err, fmt.Errorf("the far end got %d octets and close code %d %q", len(far.data), far.code, far.reason))
		}
		return err
	}
}

// as gives the case's bursts with its messages as text or all as binary.
func (c autobahnCase) as(op byte) []burst {
	bursts := slices.Clone(c.bursts)
	for i := range bursts {
		bursts[i].frames = slices.Clone(bursts[i].frames)
		for j, f := range bursts[i].frames {
			if f.op == 1 {
				bursts[i].frames[j].op = op
			}
		}
	}
	return bursts
}

// run plays a case and returns what is wrong with what came of it.
func (s subject) run(t *testing.T, bursts []burst, rounds int, want string) error {
	raw, wait := s.start(t)
	defer raw.Close()
	p := newRefPeer(raw, s.server, 1)
	var all []byte
	pieces := make([][][]byte, len(bursts)) // what is chopped, each by itself
	for i, b := range bursts {
		if b.chop != frameWise {
			pieces[i] = [][]byte{p.encode(b.frames...)}
		} else {
			for _, f := range b.frames {
				pieces[i] = append(pieces[i], p.encode(f))
			}
		}
		for _, piece := range pieces[i] {
			all = join(all, piece)
		}
	}
	plan := refDecode(all, s.server, DefaultMaxFrame)
	p.data = make([]byte, 0, len(plan.payload)*max(rounds, 1))

	// The writer stops after a burst whose answer the case waits for, until
	// the reader has it.
	goOn := make(chan struct{})
	said := async(func() error {
		for range max(rounds, 1) {
			for i, b := range bursts {
				if err := sayChopped(p, pieces[i], b.chop); err != nil {
					return err
				}
				if b.pong || rounds > 0 {
					<-goOn
				}
			}
		}
		return nil
	})
	var err error
	if want == "echo" {
		err = p.hearEcho(bursts, rounds, plan, goOn)
		if err == nil {
			_, err = raw.Write(p.encode(bye(1000, "")))
		}
	}
	close(goOn)
	if err == nil {
		err = p.hear(nil)
	}
	_ = raw.Close() // a writer may be cut off by the failed connection
	if sayErr := <-said; sayErr != nil && !isEnd(sayErr) {
		err = errors.Join(err, sayErr)
	}
	if rounds > 0 {
		plan.payload = bytes.Repeat(plan.payload, rounds)
	}
	return errors.Join(err, wait(plan), p.judge(plan, want))
}

// hearEcho reads until all is back, and has the writer go on when it may.
func (p *refPeer) hearEcho(bursts []burst, rounds int, plan refDecoded, goOn chan<- struct{}) error {
	for round := range rounds {
		if err := p.hear(func() bool { return len(p.data) >= (round+1)*len(plan.payload) }); err != nil {
			return err
		}
		goOn <- struct{}{}
	}
	for _, b := range bursts {
		if !b.pong {
			continue
		}
		if err := p.hear(func() bool { return len(p.pongs) > 0 }); err != nil {
			return err
		}
		goOn <- struct{}{}
	}
	return p.hear(func() bool {
		n := len(plan.pings)
		return len(p.data) >= len(plan.payload)*max(rounds, 1) && (n == 0 || slices.Contains(p.pongs, plan.pings[n-1]))
	})
}

// sayChopped writes a burst as it is to be chopped.
func sayChopped(p *refPeer, pieces [][]byte, chop int) error {
	for _, b := range pieces {
		size := chop
		if chop <= 0 {
			size = len(b)
		}
		if err := p.say(b, func() int { return size }); err != nil {
			return err
		}
	}
	return nil
}

// judge compares what the fuzzer heard with the case.
func (p *refPeer) judge(plan refDecoded, want string) error {
	switch {
	case !p.closed:
		return errors.New("no close frame")
	case !isSubsequence(p.pongs, plan.pings):
		return fmt.Errorf("pongs %q for pings %q", p.pongs, plan.pings)
	}
	codes := []int{1000} // what Conn's user answers
	switch want {
	case "echo":
	case "close": // the RFC: it typically echoes the code
		codes = append(codes, plan.code)
	default:
		code, err := strconv.Atoi(want)
		if err != nil || plan.end != refFailed || plan.code != code {
			return fmt.Errorf("the reference says %s %d, and the table %s", plan.end, plan.code, want)
		}
		codes = []int{code}
	}
	if !slices.Contains(codes, p.code) {
		return fmt.Errorf("close code %d, want %d", p.code, codes)
	}
	// Before a connection is failed it may have sent back what was whole.
	if whole := plan.end != refFailed; !bytes.HasPrefix(plan.payload, p.data) || whole && len(p.data) != len(plan.payload) {
		return fmt.Errorf("%d octets came back of %d, or they differ", len(p.data), len(plan.payload))
	}
	return nil
}

func TestAutobahn(t *testing.T) {
	var rows []row
	for _, c := range autobahnCases() {
		r := row{id: c.id, what: c.what, want: c.want, asText: "–", note: c.note}
		op := byte(2)
		if c.want == "1003" { // a text case whose binary form is another
			op, r.asText = 1, "1003"
		}
		for _, s := range subjects {
			r.results = append(r.results, result(t, c.id+" "+s.name, s.run(t, c.as(op), c.rounds, c.want)))
		}
		if c.text {
			want := cmp.Or(c.asText, "1003")
			r.asText = want
			for _, s := range subjects {
				if result(t, c.id+" as text, "+s.name, s.run(t, c.as(1), c.rounds, want)) != "pass" {
					r.asText = "FAIL"
				}
			}
		}
		t.Log(r.line())
		rows = append(rows, r)
	}
	rows = append(rows, utf8Row(t))
	rows = append(rows, compressionRows(t)...)
	checkPage(t, rows)
}

func result(t *testing.T, name string, err error) string {
	if err == nil {
		return "pass"
	}
	t.Errorf("%s: %v", name, err)
	return "FAIL"
}
