package box

import (
	"context"
	"fmt"
	"io"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/container"
)

// Files runs the container's sftp server. What fails before it begins is told on
// f.Errors as well.
func (p *place) Files(ctx context.Context, f backend.Files) (backend.Outcome, error) {
	s, exited, err := p.files(ctx, f)
	if err != nil {
		_, _ = fmt.Fprintf(f.Errors, "converge: %v\n", err)
		return backend.Outcome{Status: 1}, err
	}
	// The stream's end comes when the caller closes it.
	defer p.owner.Go(s.OnClose)
	select {
	case status := <-exited:
		return outcome(s, status), nil
	case <-ctx.Done():
		return backend.Outcome{Status: 1}, nil
	}
}

func (p *place) files(ctx context.Context, f backend.Files) (*container.Session, <-chan container.ExitStatus, error) {
	if p.noFiles != nil {
		return nil, nil, p.noFiles
	}
	c, err := p.wait(ctx)
	if err != nil {
		return nil, nil, failure(err)
	}
	s, err := c.OnSessionChannel(p.channels.Add(1), nil)
	if err != nil {
		return nil, nil, failure(err)
	}
	exited := make(chan container.ExitStatus, 1)
	stop := context.AfterFunc(ctx, s.OnClose)
	defer stop()
	err = s.OnSubsystem(0, "sftp", onlyReader{f.Stream}, onlyWriter{f.Stream}, onlyWriter{f.Errors},
		func(status container.ExitStatus) { exited <- status })
	if err != nil {
		p.owner.Go(s.OnClose)
		return nil, nil, failure(err)
	}
	return s, exited, nil
}

// onlyReader and onlyWriter hide the rest of a stream.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
