package clientend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

const (
	// DrainWait is the longest time from the local end of stream to Join's
	// return.
	DrainWait = 5 * time.Second
	// closeWait is how long Join may take to return once it has decided to.
	closeWait = time.Second
	// copySize is the buffer of a stream that has no better way to be copied.
	copySize = 64 << 10
)

// Local is the near end of a stream, such as standard input and output.
type Local struct {
	// In and Out may have deadlines, as connections do. Join uses those to
	// wake its own goroutines, and leaves them passed.
	In  io.Reader
	Out io.Writer
	// Broken, if not nil, is closed when Out can take nothing any more.
	Broken <-chan struct{}
}

// Join moves bytes both ways until the remote end ends, In fails, Out breaks
// or ctx ends, and closes remote. At the end of In it tells the remote end, if
// the stream can, and goes on taking what still comes until DrainWait is over.
// The error says why the stream ended other than normally; that nobody reads
// Out any more and the end of ctx are none.
//
// Nobody can make it stay: what a remote end that takes nothing, or an Out
// that nobody empties, keeps from ending within a second is left behind, and
// so is a read of In without deadlines, for a read of standard input cannot be
// interrupted. They end with that read or write, or with the connection.
func Join(ctx context.Context, remote net.Conn, local Local) error {
	sent, received := make(chan error, 1), make(chan error, 1)
	upDone, downDone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(upDone)
		err := copyUp(remote, local.In)
		sent <- err
		if half, ok := remote.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite() // it may have to wait for the network
		}
	}()
	go func() {
		defer close(downDone)
		received <- copyDown(local.Out, remote)
	}()

	err := outcome(ctx, sent, received, local.Broken)

	canWake := wake(local)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = remote.Close()
		<-downDone
		if canWake {
			<-upDone
		}
	}()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
	}
	if ctx.Err() != nil {
		return nil // the errors of an end that was ordered say nothing
	}
	return err
}

// outcome waits for the end of the stream and returns its reason.
func outcome(ctx context.Context, sent, received <-chan error, broken <-chan struct{}) error {
	var sendErr error
	var drained <-chan time.Time
	for {
		select {
		case err := <-received:
			return err
		case sendErr = <-sent:
			if errors.As(sendErr, new(*inputError)) {
				return sendErr
			}
			// The remote end may have more to say. When it is gone, its read
			// knows the reason better than our write.
			sent = nil
			timer := time.NewTimer(DrainWait - closeWait)
			defer timer.Stop()
			drained = timer.C
		case <-drained:
			return sendErr
		case <-broken:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// wake ends reads and writes of the local end that can be ended, and reports
// whether reads can.
func wake(local Local) bool {
	past := time.Unix(1, 0)
	if out, ok := local.Out.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = out.SetWriteDeadline(past)
	}
	in, ok := local.In.(interface{ SetReadDeadline(time.Time) error })
	return ok && in.SetReadDeadline(past) == nil
}

// inputError is a failed read of the local end.
type inputError struct{ err error }

func (e *inputError) Error() string { return "cannot read the local end: " + e.err.Error() }
func (e *inputError) Unwrap() error { return e.err }

// source and sink keep the errors of the local end apart from the stream's.
type source struct {
	in  io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	if errors.Is(err, io.EOF) {
		return n, io.EOF
	}
	s.err = err
	return n, err
}

type sink struct {
	out io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.out.Write(p)
	s.err = err
	return n, err
}

// copyUp returns nil at the end of in. What one read of in gives goes out at
// once, so that a keystroke never waits, and what gathers there meanwhile, up
// to what the stream takes in one piece, goes out together.
func copyUp(remote io.Writer, in io.Reader) error {
	src := &source{in: in}
	var err error
	if stream, ok := remote.(io.ReaderFrom); ok {
		_, err = stream.ReadFrom(src) // without a copy
	} else {
		_, err = io.CopyBuffer(remote, src, make([]byte, copySize))
	}
	switch {
	case err == nil:
		return nil
	case src.err != nil && errors.Is(err, src.err):
		return &inputError{src.err}
	case isResumable(remote):
		return err // in its own words
	default:
		return fmt.Errorf("cannot send to the server: connect again, the job may still be there: %w", err)
	}
}

// copyDown returns nil when remote has ended or nobody reads out any more.
func copyDown(out io.Writer, remote io.Reader) error {
	dst := &sink{out: out}
	var err error
	if stream, ok := remote.(io.WriterTo); ok {
		_, err = stream.WriteTo(dst)
	} else {
		_, err = io.CopyBuffer(dst, remote, make([]byte, copySize))
	}
	var network *net.OpError
	switch {
	case err == nil, isHangup(dst.err):
		return nil
	case dst.err != nil:
		return fmt.Errorf("cannot write what the far end sent: %w", dst.err)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return nil
	case isResumable(remote):
		return err // in its own words
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection to the server broke: connect again, the job may still be there")
	case errors.As(err, &network):
		return fmt.Errorf("the connection to the server broke: connect again, the job may still be there: %w", err)
	default:
		return fmt.Errorf("the connection ended: %w", err)
	}
}

// Windows' errors of a pipe without a reader, which syscall names only there.
const (
	windowsBrokenPipe = syscall.Errno(109)
	windowsNoData     = syscall.Errno(232)
)

// isHangup tells an output that nobody reads from one that failed otherwise,
// such as a file on a full disk.
func isHangup(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, windowsBrokenPipe) || errors.Is(err, windowsNoData) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed)
}
