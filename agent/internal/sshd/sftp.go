package sshd

import (
	"io"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/backend"
)

// runSFTP serves files until the client has ended.
func (s *session) runSFTP() {
	id := s.conn.info.ID
	s.server.events.SessionOpened(id, SFTP)
	defer s.server.events.SessionClosed(id, SFTP)
	defer s.finish()

	result, err := s.conn.place.Files(s.ctx, backend.Files{Stream: packets{s.ch, s.conn}, Errors: s.ch.Stderr()})
	if err != nil {
		s.server.log.Debug("a file transfer ended in an error", "id", id, "err", err)
	}
	s.report(result)
}

// packets is the channel as the file server reads and writes it.
type packets struct {
	ssh.Channel
	conn *conn
}

var _ io.ReadWriteCloser = packets{}

// Write sends an answer that takes several packets as a whole.
func (p packets) Write(buf []byte) (int, error) { return p.conn.bulk(p.Channel.Write, buf) }

// Read counts as activity: an SFTP client asks for each thing that it does.
func (p packets) Read(buf []byte) (int, error) {
	n, err := p.Channel.Read(buf)
	if n > 0 {
		p.conn.touch()
	}
	return n, err
}
