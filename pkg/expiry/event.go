package expiry

import (
	"fmt"
	"time"
)

// UserID names one authenticated connection. The caller chooses it, unique
// among the connections of a session: a person who connects twice is two users.
type UserID uint64

// Use is what a user holds open on a connection.
type Use uint8

const (
	// Shell is an interactive shell on a pty. Leaving one is a goodbye.
	Shell Use = iota
	// Exec is any other session: a command with or without a pty, a shell
	// without a pty, sftp, scp and other subsystems.
	Exec
	// Forward is a forwarded connection, or a listener that the user asked
	// for. It makes the user present but is no session.
	Forward

	uses // how many there are
)

// String gives "shell", "exec" or "forward".
func (u Use) String() string {
	switch u {
	case Shell:
		return "shell"
	case Exec:
		return "exec"
	case Forward:
		return "forward"
	}
	return fmt.Sprintf("use(%d)", uint8(u))
}

type eventKind uint8

const (
	evTick eventKind = iota
	evLogin
	evLogout
	evOpened
	evClosed
	evActivity
	evHoldTouched
	evHoldRemoved
	evHold
	evExtend
	evResume
	evSignal
	evJobEnded

	eventKinds // how many there are
)

// Event is something that happened. It is made by the functions below; the
// zero value is a Tick. Events that make no sense in the present state (a
// second login under the same id, a logout of a stranger) change nothing.
type Event struct {
	kind eventKind
	use  Use
	user UserID
	span time.Duration
	stay bool
}

// Tick says only that time has passed. It is due at the wake-up that Step
// returned, and harmless at any other time.
func Tick() Event { return Event{} }

// Login says that a connection has authenticated. One that never does is
// nobody, and no event. A login by itself is not activity; a caller who wants
// it to count sends Activity after it.
func Login(user UserID) Event { return Event{kind: evLogin, user: user} }

// Logout says that an authenticated connection has ended, whatever was open on
// it. A session still open by now was cut off and is no goodbye: the user gets
// the grace to come back.
func Logout(user UserID) Event { return Event{kind: evLogout, user: user} }

// Opened says that user opened a session or a forward.
func Opened(user UserID, use Use) Event { return Event{kind: evOpened, user: user, use: use} }

// Closed says that a session or a forward of user ended by itself. Where the
// connection broke underneath it, Logout alone says so.
func Closed(user UserID, use Use) Event { return Event{kind: evClosed, user: user, use: use} }

// Activity says that bytes came from a user: typed keys, input of a command,
// sftp reads and writes. Output, keepalives and forwarded traffic are none. It
// is ignored while nobody is connected.
func Activity() Event { return Event{kind: evActivity} }

// HoldTouched says that .hold exists, dated ahead of the wall clock at the
// moment of observation; ahead is negative for a date in the past. A file that
// was there before the session is not reported until it is touched again: that
// is the duty of whoever observes it, as the hold package does.
func HoldTouched(ahead time.Duration) Event { return Event{kind: evHoldTouched, span: ahead} }

// HoldRemoved says that .hold exists no more. Where only .hold kept the session
// after the last logout, the session ends.
func HoldRemoved() Event { return Event{kind: evHoldRemoved} }

// Hold is the command to stay: as if .hold were touched now, unless it is dated
// later already. The effect WriteHold asks for the file.
func Hold() Event { return Event{kind: evHold} }

// Extend is the command to move the deadline by later, never past the cap. It
// does so by dating .hold (effect WriteHold), so it also holds the session
// after the last logout. A by that is not positive is ignored.
func Extend(by time.Duration) Event { return Event{kind: evExtend, span: by} }

// Resume is the command to end the session, so that the job goes on.
func Resume() Event { return Event{kind: evResume} }

// Signal says that the process was told to stop from outside (SIGTERM, SIGINT).
func Signal() Event { return Event{kind: evSignal} }

// JobEnded says that the job of a session that began Busy has ended: now the
// times begin to count. If nobody is present, the session waits for somebody as
// at its start where stay is set, .hold exists or Keep is configured, and ends
// otherwise. It is ignored in a session that is not busy.
func JobEnded(stay bool) Event { return Event{kind: evJobEnded, stay: stay} }

// String is for logs and test failures.
func (e Event) String() string {
	switch e.kind {
	case evTick:
		return "tick"
	case evLogin:
		return fmt.Sprintf("login %d", e.user)
	case evLogout:
		return fmt.Sprintf("logout %d", e.user)
	case evOpened:
		return fmt.Sprintf("opened %d %v", e.user, e.use)
	case evClosed:
		return fmt.Sprintf("closed %d %v", e.user, e.use)
	case evActivity:
		return "activity"
	case evHoldTouched:
		return fmt.Sprintf("hold touched %v", e.span)
	case evHoldRemoved:
		return "hold removed"
	case evHold:
		return "hold"
	case evExtend:
		return fmt.Sprintf("extend %v", e.span)
	case evResume:
		return "resume"
	case evSignal:
		return "signal"
	case evJobEnded:
		return fmt.Sprintf("job ended %v", e.stay)
	}
	return fmt.Sprintf("event(%d)", uint8(e.kind))
}
