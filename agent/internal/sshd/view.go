package sshd

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/agent/internal/share"
)

// The names of the subsystems by which somebody comes to another one's shell.
// A number of a shell may follow, as in "converge-join 2".
const (
	joinSubsystem  = "converge-join"
	watchSubsystem = "converge-watch"
)

// startView begins to show another user's shell, if that is what the
// subsystem's name asks for. A forced command leaves nothing else to do, so
// that nobody can join either; nor can who may have no terminal.
func (s *session) startView(name string) (ok bool, then func()) {
	words := strings.Fields(name)
	if len(words) == 0 || s.forced() != "" || s.conn.grant.NoPTY {
		return false, nil
	}
	kind := Join
	switch words[0] {
	case joinSubsystem:
	case watchSubsystem:
		kind = Watch
	default:
		return false, nil
	}
	if !s.begin(kind) {
		return false, nil
	}
	return true, func() { s.view(kind, words[1:]) }
}

// view shows another user's shell until it ends or the viewer leaves.
func (s *session) view(kind Kind, words []string) {
	defer s.finish()
	sh, viewer, err := s.enter(kind, words)
	if err != nil {
		s.writeError(crlf(fmt.Sprintf("converge: %v\n", err)))
		s.report(backend.Outcome{Status: 1})
		s.wg.Go(s.discard)
		return
	}
	id := s.conn.info.ID
	s.server.events.SessionOpened(id, kind)
	defer s.server.events.SessionClosed(id, kind)

	s.room.Store(sh.room)
	endWall := s.startWall(kind)
	s.setViewport(viewer.Resize)
	s.onStop(viewer.Leave)
	over := make(chan struct{})
	s.wg.Go(func() {
		select {
		case <-s.gone:
			viewer.Leave()
		case <-over:
		}
	})
	s.wg.Go(func() { s.viewIn(viewer, kind) })
	reason := viewer.Run(writer(s.writeOut))
	close(over)
	// The terminal is as it was; messages go on lines of their own again.
	s.room.Store(nil)
	endWall()
	s.lastMessage("")
	result := backend.Outcome{}
	switch {
	case reason != "":
		result = sh.result
	case s.isStopping():
	default:
		reason = "converge: you have left this shell"
	}
	if reason != "" {
		_, _ = s.writeOut([]byte("\r\n" + reason + "\r\n"))
	}
	s.report(result)
}

// enter takes a viewer into the shell that they ask for.
func (s *session) enter(kind Kind, words []string) (*shell, *share.Viewer, error) {
	sh, err := s.server.shells.pick(words)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	t := s.terminal
	var window backend.Size
	if t != nil {
		window = t.Size
	}
	s.mu.Unlock()
	if t == nil && kind == Join {
		return nil, nil, errors.New("to type in a shell takes a terminal: call ssh with -t before -s")
	}
	viewer, err := sh.room.Enter(share.Person{
		Name: who(s.conn.info), Types: kind == Join, Size: shared(window), Tell: s.queue,
	}, s.intro(sh, kind, window))
	return sh, viewer, err
}

// intro is what a viewer sees first.
func (s *session) intro(sh *shell, kind Kind, window backend.Size) string {
	var b strings.Builder
	owner := who(sh.owner)
	if sh.recording != nil {
		owner += " (recorded)"
	}
	if kind == Join {
		fmt.Fprintf(&b, "converge: you type in shell %d of %s; Enter ~. leaves\n", sh.number, owner)
	} else {
		fmt.Fprintf(&b, "converge: you watch shell %d of %s; q leaves\n", sh.number, owner)
	}
	var present []string
	for _, p := range sh.room.People()[1:] {
		does := "watches"
		if p.Types {
			does = "types"
		}
		present = append(present, p.Name+" "+does)
	}
	if len(present) > 0 {
		fmt.Fprintf(&b, "Also here: %s\n", strings.Join(present, "; "))
	}
	others := s.server.shells.all()
	for i, other := range others {
		if other == sh {
			others = append(others[:i], others[i+1:]...)
			break
		}
	}
	if len(others) > 0 {
		fmt.Fprintf(&b, "Other shells: %s. To choose: %s or %s and the number\n", listed(others, "and"), joinSubsystem, watchSubsystem)
	}
	has, mine := sh.room.Size(), shared(window)
	if mine.Cols != 0 && (mine.Cols > has.Cols || mine.Rows > has.Rows || kind == Watch && mine != has) {
		fmt.Fprintf(&b, "The shell is %s and your window %s; lines look right in one of the same size.\n", has, mine)
	}
	return crlf(b.String())
}

// viewIn takes what a viewer types. That of a watcher goes nowhere, and is no
// activity: a terminal sends things by itself.
func (s *session) viewIn(viewer *share.Viewer, kind Kind) {
	buf := make([]byte, copyBuffer)
	for {
		n, err := s.ch.Read(buf)
		if err != nil {
			return // the end of input alone is no end: it may be redirected
		}
		if kind == Join {
			s.conn.touch()
			if !viewer.Type(buf[:n]) {
				break
			}
		} else if share.Leaves(buf[:n]) {
			viewer.Leave()
			break
		}
	}
	s.discard()
}

// writer makes an io.Writer of a function.
type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

var _ io.Writer = writer(nil)
