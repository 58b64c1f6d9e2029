// Package control is the door by which commands of the same user, typed in any
// shell of the job, reach a running agent: a local socket that takes one small
// request a connection. It knows the door, who may come in, and how to find it
// from the other side; it must not know what the requests do.
//
// # Where the door is
//
// On Unix it is a socket, mode 0600, in a folder of the user's own, mode 0700
// (XDG_RUNTIME_DIR/converge, or else converge-UID in the temporary folder); on
// Windows a named pipe that only the user may open, and a file in the user's
// local application data that tells its name. The file .control in the agent's
// folder points to it, for shells whose CONVERGE_AGENTDIR says which agent is
// theirs; others look through the user's folder. What an agent that was killed
// left there is removed by the next one.
//
// # Messages
//
// A message is its length in 4 bytes, big-endian, and as many bytes of JSON. The
// client sends a Request, the server answers with a Response and closes.
package control

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Limits of what either side takes from the other.
const (
	// maxMessage is the length of a message in bytes: the status of as many users
	// as an agent takes, with whose keys they have.
	maxMessage = 512 << 10
	// maxConnections is how many clients are served at once; others wait.
	maxConnections = 8
	// patience bounds a whole conversation on either side.
	patience = 5 * time.Second
	// lastWords is what conversations have that are under way at Close.
	lastWords = time.Second
	// maxDoors is how many agents are looked at in the user's folder.
	maxDoors = 256
)

// Op is what a request asks for.
type Op string

// The requests.
const (
	// Hold asks to stay after the last logout, and to start the expiry anew.
	Hold Op = "hold"
	// Extend asks to move the end later by By.
	Extend Op = "extend"
	// Resume asks to end the session, so that the job goes on.
	Resume Op = "resume"
	// StatusOp asks how things stand.
	StatusOp Op = "status"
	// Share asks for the lines that let others join or watch a shell.
	Share Op = "share"
)

// Request is what a client wants.
type Request struct {
	Op Op `json:"op"`
	// By is Extend's, in nanoseconds; more than 0.
	By time.Duration `json:"by,omitempty"`
}

// validate refuses what no client of this package sends.
func (r Request) validate() error {
	switch r.Op {
	case Hold, Resume, StatusOp, Share:
		if r.By != 0 {
			return fmt.Errorf("%s takes no duration", r.Op)
		}
	case Extend:
		if r.By <= 0 {
			return errors.New("extend needs a duration above 0")
		}
	default:
		return fmt.Errorf("the agent does not know the request %q: use the agent program that the job runs", r.Op)
	}
	return nil
}

// Response is the agent's answer.
type Response struct {
	// Error is a sentence that says why the request was not carried out.
	Error string `json:"error,omitempty"`
	// Text is the answer for people, lines without control characters.
	Text string `json:"text,omitempty"`
	// Status is how things stand after the request.
	Status *Status `json:"status,omitempty"`
}

// Status describes a session for programs. Its JSON form is what agent status
// --json prints.
type Status struct {
	ID       string `json:"id"`
	AgentDir string `json:"agentdir"`
	// Phase is waiting, active, lingering or ended.
	Phase string `json:"phase"`
	// Held tells whether .hold keeps the session, Keep whether --keep does,
	// JobRunning whether the agent's own command still runs.
	Held       bool `json:"held"`
	Keep       bool `json:"keep"`
	JobRunning bool `json:"job_running"`
	// Start is when the session began, Deadline when it ends and Limit what
	// nothing extends; nil for never.
	Start    time.Time  `json:"start"`
	Deadline *time.Time `json:"deadline"`
	Limit    *time.Time `json:"limit"`
	// RemainingSeconds is the time to Deadline.
	RemainingSeconds *float64 `json:"remaining_seconds"`
	// Reason is why the session will end, or did.
	Reason string `json:"reason"`
	// Users are those logged in.
	Users []User `json:"users"`
}

// User is an authenticated connection.
type User struct {
	Name   string    `json:"name"`
	Remote string    `json:"remote"`
	Since  time.Time `json:"since"`
	// Key is the fingerprint of the key that logged in, "" after a password.
	Key string `json:"key,omitempty"`
	// Owner tells whose the key is, where that is known.
	Owner string `json:"owner,omitempty"`
	// Present is false for a connection that has had nothing open for a while.
	Present bool `json:"present"`
	// Away is true while its connection is lost.
	Away bool `json:"away,omitempty"`
}

// ErrMessage is the error, possibly wrapped, of a message that is none.
var ErrMessage = errors.New("malformed message")

// send writes v as one message.
func send(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > maxMessage {
		return fmt.Errorf("encode message: %d bytes are more than %d: %w", len(body), maxMessage, ErrMessage)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// receive reads one message into v. Memory is taken for what arrives, not for
// what a length promises.
func receive(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	length := int64(binary.BigEndian.Uint32(head[:]))
	if length > maxMessage {
		return fmt.Errorf("read message: %d bytes are more than %d: %w", length, maxMessage, ErrMessage)
	}
	body, err := io.ReadAll(io.LimitReader(r, length))
	switch {
	case err != nil:
		return fmt.Errorf("read message: %w", err)
	case int64(len(body)) < length:
		return fmt.Errorf("read message: %w", io.ErrUnexpectedEOF)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields() // what is not understood is not carried out by half
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: something follows the request", ErrMessage)
	}
	return nil
}
