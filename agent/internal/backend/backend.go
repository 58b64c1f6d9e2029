// Package backend is what the SSH server asks of the place where users' programs
// run: the machine of the agent, or a container. The server speaks SSH and knows
// neither of them; they know nothing of SSH's wire, of who may log in, and of when
// a session ends.
//
// The file .hold, and all else by which a session is kept or ended, belongs to the
// agent and lies where the agent runs, whatever the back end is: programs in a
// container do not see it.
package backend

import (
	"context"
	"errors"
	"io"
	"net"
)

// ErrUnsupported is the answer to what a place has no means for.
var ErrUnsupported = errors.New("not supported here")

// Backend is where the programs of users run. Its methods may be called
// concurrently, and do not wait.
type Backend interface {
	// Name is what users and logs call it, as in "a container of busybox"; ""
	// is the agent's own machine.
	Name() string
	// Shell is the program that runs shells and commands, as recordings have
	// it; "" is not known.
	Shell() string
	// Terminals is nil where programs can have terminals, and else a sentence
	// on why not.
	Terminals() error
	// Subsystem reports whether there is a subsystem of that name beside sftp.
	Subsystem(name string) bool
	// Begin makes the place of a connection whose user has logged in. What
	// takes time happens in the background, and what fails is the error of
	// each of the place's methods. Whoever begins has to call End.
	Begin(Peer, Owner) Place
}

// Peer is who a place is for.
type Peer struct {
	// ID is unique among those whom the agent logs: the session's, where it
	// has one.
	ID string
	// User is the name that logged in.
	User string
	// Remote is the client's address, as far as it is known.
	Remote string
	// ReadOnlyFiles is whether Files may change nothing.
	ReadOnlyFiles bool
}

// Owner is who answers for all that runs in a place, and may live longer than
// the place.
type Owner struct {
	// Hurry is closed when everything is asked to end, and Kill when nothing
	// is waited for any more.
	Hurry, Kill <-chan struct{}
	// Go runs something whose end the owner waits for. It may be called until
	// End has returned, and by what it runs.
	Go func(func())
}

// Place is where the programs of one connection run. Its methods may be called
// concurrently.
type Place interface {
	// Start starts a program; ctx ends the wait for that, not the program. The
	// error is a sentence for the user, who reads it after the agent's name.
	Start(ctx context.Context, p Program) (Process, error)
	// Files serves the SSH file transfer protocol until the client has ended,
	// or ctx ends. An error is for the log.
	Files(ctx context.Context, f Files) (Outcome, error)
	// Dial connects to an address as seen from the place: tcp, or unix with a
	// path that may be relative to where programs start.
	Dial(ctx context.Context, network, address string) (Conn, error)
	// Listen listens in the place: unix, at a path to which only the user's own
	// programs can connect, or tcp on loopback alone, whatever the host: at
	// that loopback address, or else at those of both families. Port 0 is a
	// free one. Connections live on when their listener is closed.
	Listen(ctx context.Context, network, address string) ([]Listener, error)
	// ListenAgent listens at a new path to which only the user's own programs
	// can connect.
	ListenAgent(ctx context.Context) (l Listener, path string, err error)
	// End ends what the connection has in the place, but for what the place
	// lets programs leave behind. It returns when that is done.
	End()
}

// Program is what a user wants to run.
type Program struct {
	// Line is given to the shell; "" is the shell itself.
	Line string
	// Subsystem is the name of one that the back end has; Line is "" then.
	Subsystem string
	// Env are variables over those that the place gives; Unset are names of
	// those that it shall not give.
	Env, Unset []string
	// Terminal is nil for a program with three streams.
	Terminal *Terminal
}

// Files is a stream on which files are asked for.
type Files struct {
	// Stream is read to its end, and never again after Files has returned but
	// for a read that it waits in.
	Stream io.ReadWriteCloser
	// Errors takes what the file server has to say.
	Errors io.Writer
}

// Terminal is what a user wants of a terminal.
type Terminal struct {
	// Term is its type, the variable TERM.
	Term string
	Size Size
	// Modes are set as far as the place knows how to.
	Modes []Mode
}

// Size is that of a terminal, in cells and pixels; 0 is unknown.
type Size struct {
	Cols, Rows, Width, Height uint16
}

// Mode is one encoded terminal mode (RFC 4254 §8).
type Mode struct {
	Code  byte
	Value uint32
}

// Outcome is how a program ended: with a status, or by a signal.
type Outcome struct {
	Status uint32
	// Signal is the name of the signal without SIG, "" if there was none.
	Signal string
	// Core is whether there was a core dump, as far as that is known.
	Core bool
}

// Process is a program that was started. Either Outcome or Abandon has to be
// called once, and Close after Outcome. The methods may be called concurrently,
// and none but Write and Read waits for the program.
type Process interface {
	// Stdin takes input, from several writers too. CloseStdin ends it; on a
	// terminal nobody calls that.
	Stdin() io.Writer
	CloseStdin()
	// Stdout and Stderr are the output, to be read by one each. On a terminal,
	// which has one stream, Stderr is nil.
	Stdout() io.Reader
	Stderr() io.Reader
	// Exited is closed when the program has ended. Its output may have more to
	// be read, or be held open by others.
	Exited() <-chan struct{}
	// Resize gives the terminal another size.
	Resize(Size)
	// Signal sends a signal, by its name without SIG (RFC 4254 §6.9), to the
	// program and its process group, and reports whether there is such a signal
	// here.
	Signal(name string) bool
	// Stop asks the program to end, and kills it when the place's patience is
	// over, or the owner's.
	Stop()
	// Outcome returns how the program ended; it has to have exited. Whatever it
	// has left is the place's to look after.
	Outcome() Outcome
	// Close closes this side's streams.
	Close()
	// Abandon is for a program whose client is gone: it is hung up on, and its
	// streams are closed. What becomes of it is the place's to look after.
	Abandon()
}

// Conn is a connection in a place.
type Conn interface {
	io.ReadWriteCloser
	// CloseWrite says that no more data follow; what comes can still be read.
	CloseWrite() error
	// StopReading ends a Read that waits, and those to come, with
	// os.ErrDeadlineExceeded or the end of the stream. What is written still
	// arrives.
	StopReading()
	// RemoteAddr is the other end.
	RemoteAddr() net.Addr
}

// Listener accepts connections in a place.
type Listener interface {
	// Accept fails for good once the listener is closed, or has ended by itself
	// with net.ErrClosed.
	Accept() (Conn, error)
	Close() error
	// Addr is what is listened at, with the port that was free.
	Addr() net.Addr
}
