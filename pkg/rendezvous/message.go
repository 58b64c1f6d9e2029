package rendezvous

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
)

// Limits of the control protocol.
const (
	// Version is the protocol's version that this code speaks; it takes all
	// from MinVersion on.
	Version    = 2
	MinVersion = 1
	// SpareVersion is the first version with parked connections.
	SpareVersion = 2
	// MaxMessage is the longest encoded message in bytes.
	MaxMessage = 16 << 10
	// maxText and maxMeta bound what a peer can make us keep or show.
	maxText = 1 << 10
	maxMeta = 32
	// maxProtocols is how many an agent may speak.
	maxProtocols = 8
	// MaxTicket is the longest ticket in bytes.
	MaxTicket = 512
	// maxRenew bounds Ticket.Renew: a day.
	maxRenew = 24 * 60 * 60
	// maxExpires bounds Status.Expires: the year 9999.
	maxExpires = 253402300799
)

// Message is one message of the control connection. Exactly one of the fields
// is set; a message of which this version knows none is to be ignored, so
// that a later one may add some.
type Message struct {
	Hello      *Hello      `json:"hello,omitempty"`
	Challenge  *Challenge  `json:"challenge,omitempty"`
	Proof      *Proof      `json:"proof,omitempty"`
	Registered *Registered `json:"registered,omitempty"`
	Refused    *Refused    `json:"refused,omitempty"`
	Dial       *Dial       `json:"dial,omitempty"`
	DialFailed *DialFailed `json:"dial_failed,omitempty"`
	Park       *Park       `json:"park,omitempty"`
	Parking    *Parking    `json:"parking,omitempty"`
	Renew      *Renew      `json:"renew,omitempty"`
	Ticket     *Ticket     `json:"ticket,omitempty"`
	Accepted   *Accepted   `json:"accepted,omitempty"`
	Status     *Status     `json:"status,omitempty"`
	Bye        *Bye        `json:"bye,omitempty"`
}

// Hello is the agent's first message.
type Hello struct {
	// Version and MinVersion are the newest and the oldest protocol version
	// that the agent speaks.
	Version    int `json:"version"`
	MinVersion int `json:"min_version"`
	// Key is the agent's public run key (Ed25519, 32 bytes).
	Key []byte `json:"key"`
	// Software names the agent and its version.
	Software string `json:"software,omitempty"`
	// Meta describes the job, for the sessions page.
	Meta map[string]string `json:"meta,omitempty"`
	// Protocols are the websocket subprotocols in which clients may speak with
	// the agent, the one it likes best first. The server knows none of them: it
	// takes the first that a client offers too.
	Protocols []string `json:"protocols,omitempty"`
	// Ticket is the newest that the agent has for the id from this server's
	// URL, if it has one.
	Ticket []byte `json:"ticket,omitempty"`
}

// Challenge is the server's answer to Hello.
type Challenge struct {
	// Version is the protocol version that both will speak.
	Version int `json:"version"`
	// Nonce is 32 fresh random bytes.
	Nonce []byte `json:"nonce"`
}

// Proof is the agent's answer to Challenge: it holds the run key.
type Proof struct {
	// Signature is over ProofText.
	Signature []byte `json:"signature"`
}

// Registered says that the agent has its id.
type Registered struct {
	// ID is the agent's id.
	ID string `json:"id"`
	// Ticket is there if the server gives tickets.
	Ticket *Ticket `json:"ticket,omitempty"`
}

// Renew asks for a newer ticket, from a server that has given one.
type Renew struct{}

// Ticket lets an agent show to a server that does not know it, such as the
// same one after its restart, that it holds the id. It is good for the id with
// the agent's run key only, and means nothing to the agent.
type Ticket struct {
	// Value is what goes into Hello.Ticket.
	Value []byte `json:"value"`
	// Renew is how many seconds later the agent is to ask for a newer one.
	Renew int `json:"renew"`
}

// Codes of Refused.
const (
	// RefusedVersion: no common protocol version.
	RefusedVersion = "version"
	// RefusedTaken: another agent has the id.
	RefusedTaken = "id-taken"
	// RefusedProof: the signature is wrong.
	RefusedProof = "proof"
	// RefusedMessage: a message was missing, late or malformed.
	RefusedMessage = "message"
	// RefusedDisplaced: the same agent has registered on a newer connection.
	RefusedDisplaced = "displaced"
	// RefusedFull: the server takes no more agents for now.
	RefusedFull = "full"
	// RefusedAccess: the server's rules do not let the agent in, or no more.
	RefusedAccess = "access"
)

// Refused ends the control connection.
type Refused struct {
	// Code is one of the Refused constants, or a later one.
	Code string `json:"code"`
	// Text is a sentence for people.
	Text string `json:"text"`
}

func (r *Refused) Error() string { return r.Text }

// Dial asks the agent to dial back for a client. On a parked connection it is
// the first message and says that the client is there.
type Dial struct {
	// Client numbers the client, once per server run.
	Client uint64 `json:"client"`
	// Token authenticates the dial-back, once and for ten seconds. It is empty
	// on a parked connection.
	Token string `json:"token,omitempty"`
	// Remote is the client's address as the server saw it.
	Remote string `json:"remote,omitempty"`
	// Protocol is the one of the agent's protocols that the client was told,
	// "" for none.
	Protocol string `json:"protocol,omitempty"`
	// Session is the id of the client's session, for logs: "" from a server
	// that knows none.
	Session string `json:"session,omitempty"`
}

// DialFailed says that the agent will not dial back for a client.
type DialFailed struct {
	Client uint64 `json:"client"`
	// Text is a sentence for the client.
	Text string `json:"text"`
}

// Park asks for leave to park a data connection, from SpareVersion on.
type Park struct{}

// Parking is the answer to Park: the agent may open one data connection, which
// then waits for a client.
type Parking struct {
	// Client stands where a dial-back has its client's number.
	Client uint64 `json:"client"`
	// Token authenticates the connection, once and for thirty seconds.
	Token string `json:"token"`
}

// Accepted is the agent's answer to Dial on a parked connection. The stream
// begins after it, in either direction after the first message.
type Accepted struct {
	Client uint64 `json:"client"`
}

// Status is how a registered agent stands, for the sessions page. It says so
// when that changes; a server that does not know the message ignores it.
type Status struct {
	// State is one word, such as waiting, active or lingering.
	State string `json:"state"`
	// Users is how many are logged in.
	Users int `json:"users,omitempty"`
	// Expires is when the agent ends if nothing happens, in seconds of Unix
	// time; 0 if it does not.
	Expires int64 `json:"expires,omitempty"`
}

// Bye is a clean goodbye of either side: the id is free at once.
type Bye struct {
	// Text says why.
	Text string `json:"text,omitempty"`
}

// check bounds what a peer sent.
func (m *Message) check() error {
	set := 0
	count := func(present bool) {
		if present {
			set++
		}
	}
	count(m.Hello != nil)
	count(m.Challenge != nil)
	count(m.Proof != nil)
	count(m.Registered != nil)
	count(m.Refused != nil)
	count(m.Dial != nil)
	count(m.DialFailed != nil)
	count(m.Park != nil)
	count(m.Parking != nil)
	count(m.Renew != nil)
	count(m.Ticket != nil)
	count(m.Accepted != nil)
	count(m.Status != nil)
	count(m.Bye != nil)
	if set > 1 {
		return errors.New("it is several messages in one")
	}
	switch {
	case m.Hello != nil:
		return m.Hello.check()
	case m.Challenge != nil && len(m.Challenge.Nonce) != NonceSize:
		return fmt.Errorf("challenge: the nonce is not %d bytes long", NonceSize)
	case m.Proof != nil && len(m.Proof.Signature) != signatureSize:
		return fmt.Errorf("proof: the signature is not %d bytes long", signatureSize)
	case m.Registered != nil:
		if t := m.Registered.Ticket; t != nil {
			if err := t.check(); err != nil {
				return err
			}
		}
		return ValidID(m.Registered.ID)
	case m.Ticket != nil:
		return m.Ticket.check()
	case m.Refused != nil:
		return short("refused", m.Refused.Code, m.Refused.Text)
	case m.Dial != nil:
		if m.Dial.Session != "" && !ValidSession(m.Dial.Session) {
			return errors.New("dial: the session is no session's id")
		}
		return short("dial", m.Dial.Token, m.Dial.Remote, m.Dial.Protocol)
	case m.Status != nil:
		return m.Status.check()
	case m.DialFailed != nil:
		return short("dial_failed", m.DialFailed.Text)
	case m.Parking != nil:
		return short("parking", m.Parking.Token)
	case m.Bye != nil:
		return short("bye", m.Bye.Text)
	}
	return nil
}

func (h *Hello) check() error {
	switch {
	case len(h.Key) != keySize:
		return fmt.Errorf("hello: the key is not %d bytes long", keySize)
	case h.Version < 1 || h.MinVersion < 1 || h.MinVersion > h.Version:
		return errors.New("hello: the versions make no range")
	case len(h.Ticket) > MaxTicket:
		return fmt.Errorf("hello: the ticket is longer than %d bytes", MaxTicket)
	case len(h.Meta) > maxMeta:
		return fmt.Errorf("hello: more than %d meta entries", maxMeta)
	}
	for k, v := range h.Meta {
		if err := short("hello: meta", k, v); err != nil {
			return err
		}
	}
	if len(h.Protocols) > maxProtocols {
		return fmt.Errorf("hello: more than %d protocols", maxProtocols)
	}
	for _, p := range h.Protocols {
		if !protocolName.MatchString(p) {
			return fmt.Errorf("hello: %.64q is no name of a protocol", p)
		}
	}
	return short("hello", h.Software)
}

func (s *Status) check() error {
	if s.Users < 0 || s.Expires < 0 || s.Expires > maxExpires || !stateWord.MatchString(s.State) {
		return errors.New("status: it makes no sense")
	}
	return nil
}

// stateWord bounds Status.State.
var stateWord = regexp.MustCompile("^[a-z-]{1,32}$")

func (t *Ticket) check() error {
	switch {
	case len(t.Value) == 0 || len(t.Value) > MaxTicket:
		return fmt.Errorf("ticket: it is not 1 to %d bytes long", MaxTicket)
	case t.Renew < 1 || t.Renew > maxRenew:
		return fmt.Errorf("ticket: it cannot be renewed after %d seconds", t.Renew)
	}
	return nil
}

// protocolName bounds RFC 6455's names of subprotocols (section 4.1: a token of
// RFC 2616).
var protocolName = regexp.MustCompile("^[0-9A-Za-z!#$%&'*+.^_`|~-]{1,64}$")

func short(what string, texts ...string) error {
	for _, t := range texts {
		if len(t) > maxText {
			return fmt.Errorf("%s: a text is longer than %d bytes", what, maxText)
		}
	}
	return nil
}

// Send writes a message: its length in two bytes, big-endian, and as much
// JSON, in one Write. Calls must not overlap.
func Send(w io.Writer, m Message) error {
	b, err := Encode(m)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("cannot send a control message: %w", err)
	}
	return nil
}

// Encode returns what Send writes.
func Encode(m Message) ([]byte, error) {
	var buf bytes.Buffer
	buf.Write([]byte{0, 0})
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(m); err != nil {
		return nil, fmt.Errorf("cannot encode a control message: %w", err)
	}
	b := buf.Bytes()
	n := len(b) - 2
	if n > MaxMessage {
		return nil, fmt.Errorf("cannot send a control message of %d bytes: the limit is %d", n, MaxMessage)
	}
	binary.BigEndian.PutUint16(b, uint16(n))
	return b, nil
}

// ErrMalformed is wrapped by Receive's errors about what the peer sent, as
// opposed to those of the connection.
var ErrMalformed = errors.New("malformed control message")

// Receive reads one message and checks its limits. io.EOF is returned as it
// is between messages only. Calls must not overlap.
func Receive(r io.Reader) (Message, error) {
	var prefix [2]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return Message{}, err
	}
	n, err := messageLength(prefix[:])
	if err != nil {
		return Message{}, err
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Message{}, err
	}
	return Decode(b)
}

// messageLength decodes a message's first two bytes.
func messageLength(prefix []byte) (int, error) {
	n := int(binary.BigEndian.Uint16(prefix))
	if n == 0 || n > MaxMessage {
		return 0, fmt.Errorf("%w: length %d", ErrMalformed, n)
	}
	return n, nil
}

// Cut decodes the message at the start of b and returns how long it is there,
// or 0 while b does not hold all of it. It is Receive for bytes that come by
// themselves; its errors are all ErrMalformed.
func Cut(b []byte) (Message, int, error) {
	if len(b) < 2 {
		return Message{}, 0, nil
	}
	n, err := messageLength(b)
	if err != nil || len(b) < 2+n {
		return Message{}, 0, err
	}
	m, err := Decode(b[2 : 2+n])
	return m, 2 + n, err
}

// Decode decodes the JSON of one message and checks its limits.
func Decode(b []byte) (Message, error) {
	var m Message
	if err := json.Unmarshal(b, &m); err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := m.check(); err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return m, nil
}
