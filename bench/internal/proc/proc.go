//go:build linux

// Package proc starts the processes that are measured, waits until they are
// ready, asks the kernel for their CPU time and memory, and ends them. It must
// not know what they do.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// readyWait bounds how long a process may take to be ready.
	readyWait = 30 * time.Second
	// stopWait is what a process has between SIGTERM and SIGKILL.
	stopWait = 5 * time.Second
	// maxOutput is how much of a process's output is kept, in bytes.
	maxOutput = 64 << 10
)

// Process is a program that runs beside the harness, with its descendants.
type Process struct {
	// Name is the program's, for messages.
	Name string
	// Started is when it was started.
	Started time.Time

	cmd  *exec.Cmd
	out  *output
	done chan struct{}
}

// Start starts a program with nothing on its standard input. Whoever starts it
// must Stop it.
func Start(args ...string) (*Process, error) {
	p := &Process{
		Name: filepath.Base(args[0]),
		out:  &output{more: make(chan struct{})},
		done: make(chan struct{}),
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	// A group of its own can be ended as a whole.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A descendant that keeps the output open must not keep Wait.
	p.cmd.WaitDelay = time.Second
	p.Started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", p.Name, err)
	}
	go func() { // ends with the process, which Stop waits for
		_ = p.cmd.Wait()
		p.out.end()
		close(p.done)
	}()
	return p, nil
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Wait waits until the output has a match of the pattern, and returns the
// submatches.
func (p *Process) Wait(ctx context.Context, pattern *regexp.Regexp) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	for {
		text, more, over := p.out.look()
		if match := pattern.FindStringSubmatch(text); match != nil {
			return match, nil
		}
		if over {
			return nil, fmt.Errorf("%s ended before it was ready: %s", p.Name, lastLines(text))
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is not ready: %w: %s", p.Name, ctx.Err(), lastLines(text))
		}
	}
}

// Stop ends the process and its group, and waits for the process.
func (p *Process) Stop() {
	_ = syscall.Kill(-p.Pid(), syscall.SIGTERM)
	timer := time.NewTimer(stopWait)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
	// What has left no trace by now does not answer; what has, ends.
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
}

// Kill ends the process and its group as a crash would, and waits for the
// process.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
}

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Output is what the process printed, or the beginning of it.
func (p *Process) Output() string {
	text, _, _ := p.out.look()
	return text
}

// lastLines is the end of a text, on one line, for messages.
func lastLines(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" {
		return "it printed nothing"
	}
	return text[max(0, len(text)-500):]
}

// output collects what a process prints and lets others wait for it.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{} // closed and replaced at each write
	over bool
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(b[:min(len(b), maxOutput-o.buf.Len())])
	close(o.more)
	o.more = make(chan struct{})
	return len(b), nil
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	close(o.more)
	o.more = make(chan struct{})
}

func (o *output) look() (text string, more <-chan struct{}, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String(), o.more, o.over
}

// ErrEnded is returned for figures of a process that has ended.
var ErrEnded = errors.New("the process has ended")
