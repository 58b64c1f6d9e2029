package sshd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/converge/agent/internal/asciicast"
	"example.com/converge/agent/internal/backend"
	"example.com/converge/agent/internal/share"
)

// shell is an interactive shell as others see it.
type shell struct {
	number int
	owner  UserInfo
	since  time.Time
	room   *share.Room
	// recording is nil where there is none.
	recording *asciicast.Recorder
	// result is how it ended; it is set before room is closed.
	result backend.Outcome
}

// shells are those that can be joined, in the order in which they started.
type shells struct {
	mu   sync.Mutex
	last int
	list []*shell
}

// ShellInfo describes an interactive shell that can be joined.
type ShellInfo struct {
	// Number counts the shells of this Server from 1; it is what
	// converge-join and converge-watch take.
	Number int
	// Owner is who started it, at Since.
	Owner UserInfo
	Since time.Time
	// Joined and Watching are the names of those who came to it.
	Joined, Watching []string
	// Recorded says whether it is recorded, or was.
	Recorded bool
}

// Shells returns the interactive shells, in the order in which they started.
func (s *Server) Shells() []ShellInfo {
	var list []ShellInfo
	for _, sh := range s.shells.all() {
		info := ShellInfo{Number: sh.number, Owner: sh.owner, Since: sh.since, Recorded: sh.recording != nil}
		for _, p := range sh.room.People()[1:] {
			if p.Types {
				info.Joined = append(info.Joined, p.Name)
			} else {
				info.Watching = append(info.Watching, p.Name)
			}
		}
		list = append(list, info)
	}
	return list
}

// next counts a shell that is about to start.
func (l *shells) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	return l.last
}

func (l *shells) add(sh *shell) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, sh)
}

func (l *shells) remove(sh *shell) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.DeleteFunc(l.list, func(other *shell) bool { return other == sh })
}

func (l *shells) all() []*shell {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// pick returns the shell that the words after the subsystem's name ask for: a
// number, or nothing for the newest.
func (l *shells) pick(words []string) (*shell, error) {
	list := l.all()
	switch {
	case len(words) > 1:
		return nil, errors.New("give one number of a shell at most")
	case len(list) == 0:
		return nil, errors.New("there is no shell to join: somebody has to open one first, with a plain ssh")
	case len(words) == 0:
		return list[len(list)-1], nil
	}
	number, err := strconv.Atoi(words[0])
	if err == nil {
		for _, sh := range list {
			if sh.number == number {
				return sh, nil
			}
		}
	}
	return nil, fmt.Errorf("there is no shell %q; there is %s", clip(printable(words[0])), listed(list, "and"))
}

// listed words a list of shells.
func listed(list []*shell, last string) string {
	var b strings.Builder
	for i, sh := range list {
		switch {
		case i > 0 && i == len(list)-1:
			b.WriteString(" " + last + " ")
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d of %s", sh.number, who(sh.owner))
	}
	return b.String()
}

// who is how others see a user.
func who(u UserInfo) string { return printable(u.User) + " from " + printable(u.Remote) }

// host makes an interactive shell known that has just been started, so that
// others can join it. begun is the size that it started with.
func (s *session) host(p backend.Process, begun backend.Size) *shell {
	info := s.conn.info
	sh := &shell{number: s.server.shells.next(), owner: info, since: time.Now()}
	sh.recording = s.record(sh, begun)
	sh.room = share.NewRoom(share.Config{
		Owner: share.Person{Name: who(info), Size: shared(begun), Tell: s.queue},
		Resize: func(z share.Size) {
			p.Resize(backend.Size(z))
			if sh.recording != nil {
				sh.recording.Resize(int(z.Cols), int(z.Rows))
			}
		},
		Type: p.Stdin().Write,
	})
	s.room.Store(sh.room)
	s.wg.Go(sh.room.Run)
	s.setViewport(sh.room.ResizeOwner)
	s.server.shells.add(sh)
	return sh
}

// setViewport says who hears of the size of the client's window, and tells the
// present one.
func (s *session) setViewport(tell func(share.Size)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.viewport = func(z backend.Size) { tell(shared(z)) }
	if s.terminal != nil {
		s.viewport(s.terminal.Size)
	}
}

func shared(z backend.Size) share.Size { return share.Size(z) }

// show returns what takes the output of a shell: everybody's share before the
// owner's, who may be slow.
func (s *session) show(sh *shell) func([]byte) (int, error) {
	return func(p []byte) (int, error) {
		if sh.recording != nil {
			sh.recording.Output(p)
		}
		s.out.Lock()
		defer s.out.Unlock()
		sh.room.Output(p)
		return s.ch.Write(p)
	}
}

// unhost ends a shell for everybody else.
func (s *session) unhost(sh *shell, reason string, result backend.Outcome) {
	s.server.shells.remove(sh)
	sh.result = result
	sh.room.Close(reason)
	if sh.recording != nil {
		s.wg.Go(sh.recording.Close)
	}
}

// Why a shell has ended for those who were in it with its owner.
const (
	shellEnded = "converge: the shell has ended"
	ownerGone  = "converge: its owner's connection is gone, and so is the shell"
)

// record starts the recording of a shell, if shells are recorded. A shell that
// cannot be is a shell all the same: the log is told.
func (s *session) record(sh *shell, begun backend.Size) *asciicast.Recorder {
	dir := s.server.cfg.Record
	if dir == "" {
		return nil
	}
	warn := func(err error) {
		s.server.log.Warn("a shell is not recorded any further", "shell", sh.number, "id", sh.owner.ID, "err", err)
	}
	s.mu.Lock()
	term := s.terminal.Term
	s.mu.Unlock()
	title := fmt.Sprintf("shell %d of %s", sh.number, who(sh.owner))
	if key := sh.owner.KeyFingerprint; key != "" {
		title += ", " + key
	}
	recording, err := asciicast.Create(dir, asciicast.Name(sh.since, sh.owner.User, sh.number), asciicast.Header{
		Cols: int(begun.Cols), Rows: int(begun.Rows), Start: sh.since,
		Title: title, Term: term, Shell: s.server.backend.Shell(),
	}, asciicast.Options{Failed: warn})
	if err != nil {
		warn(err)
		return nil
	}
	_, _ = s.writeOut([]byte(recorded))
	return recording
}

// recorded is what everybody sees whose shell is.
const recorded = "This shell is recorded: what the terminal shows, not what is typed.\r\n"
