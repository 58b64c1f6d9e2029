// Package joblog writes what people read in a job's log: lines, groups that fold
// where the CI system can fold them, a sign of life now and then, and the summary
// that GitHub shows of a step. It words nothing, and knows nothing of sessions.
package joblog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// Every is how long the log is silent before there is a sign of life: less
	// than the ten minutes after which CircleCI and others give a job up, and not
	// the five before the end at which there is a warning anyhow.
	Every = 6 * time.Minute
	// maxNotes is how many lines of a summary are kept, and maxNote the length
	// of one in bytes: a step may have 1 MiB.
	maxNotes, maxNote = 200, 1 << 10
)

// Log is the log of a job. Its methods may be called concurrently. A log that is
// gone is no error: who is in may stay.
type Log struct {
	out     io.Writer
	fold    folding
	summary string // the file; "" for none

	said chan struct{} // something was, since Run looked last

	mu    sync.Mutex // serialises out, and guards the rest
	folds int
	notes []string
	lost  int
}

// folding is how a CI system marks what it folds.
type folding int

const (
	nowhere folding = iota
	github
	gitlab
)

// New returns the log on out. getenv, os.Getenv or a stand-in for it, tells the
// CI system.
func New(out io.Writer, getenv func(string) string) *Log {
	l := &Log{out: out, said: make(chan struct{}, 1)}
	switch {
	case getenv("GITHUB_ACTIONS") == "true": // Gitea and Forgejo set it too
		l.fold, l.summary = github, getenv("GITHUB_STEP_SUMMARY")
	case getenv("GITLAB_CI") == "true":
		l.fold = gitlab
	}
	return l
}

// Say writes text, which ends with a line break.
func (l *Log) Say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(text)
}

// write writes; the caller holds mu.
func (l *Log) write(text string) {
	_, _ = io.WriteString(l.out, text)
	select {
	case l.said <- struct{}{}:
	default:
	}
}

// Fold writes text, which ends with a line break, in a group with a title where
// the CI system has such, and as it is elsewhere.
//
// https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands,
// https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections
func (l *Log) Fold(title, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.folds++
	switch l.fold {
	case github:
		text = "::group::" + title + "\n" + text + "::endgroup::\n"
	case gitlab:
		name := fmt.Sprintf("converge_%d_%d", os.Getpid(), l.folds)
		text = fmt.Sprintf("\x1b[0Ksection_start:%d:%s[collapsed=true]\r\x1b[0K%s\n%s\x1b[0Ksection_end:%d:%s\r\x1b[0K\n",
			time.Now().Unix(), name, title, text, time.Now().Unix(), name)
	}
	l.write(text)
}

// Run says what line returns, if it is not "", whenever there was nothing in the
// log for Every, until ctx ends.
func (l *Log) Run(ctx context.Context, line func() string) {
	timer := time.NewTimer(Every)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.said:
		case <-timer.C:
			if text := line(); text != "" {
				l.Say(text)
			}
		}
		timer.Reset(Every)
	}
}

// Note keeps a line for the summary, without a line break. A summary may be seen
// by more people than the log: GitHub shows that of a public repository to
// everybody, and the log to those with an account.
func (l *Log) Note(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.summary == "" {
		return
	}
	if len(l.notes) >= maxNotes {
		l.lost++
		return
	}
	l.notes = append(l.notes, strings.ToValidUTF8(line[:min(len(line), maxNote)], ""))
}

// Summarize adds to the step's summary, if there is one: a heading, and the notes
// since the last time as they are. The notes are indented, so that nothing in
// them means anything to Markdown.
func (l *Log) Summarize(heading string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.summary == "" {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n#### %s\n\n", heading)
	for _, note := range l.notes {
		fmt.Fprintf(&b, "    %s\n", strings.ReplaceAll(note, "\n", " "))
	}
	if l.lost > 0 {
		fmt.Fprintf(&b, "    and %d more lines, which are in the log\n", l.lost)
	}
	b.WriteString("\n")
	l.notes, l.lost = nil, 0
	f, err := os.OpenFile(l.summary, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		_, err = f.WriteString(b.String())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("cannot add to the summary of the step (GITHUB_STEP_SUMMARY): %w", err)
	}
	return nil
}
