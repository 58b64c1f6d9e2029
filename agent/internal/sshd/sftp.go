package sshd

import (
	"io"

	"github.com/pkg/sftp"

	"golang.org/x/crypto/ssh"
)

// runSFTP serves files until the client has ended.
func (s *session) runSFTP() {
	id := s.conn.info.ID
	s.server.events.SessionOpened(id, SFTP)
	defer s.server.events.SessionClosed(id, SFTP)
	defer s.finish()

	options := []sftp.ServerOption{sftp.WithAllocator(), sftp.WithMaxTxPacket(maxSFTPData)}
	dir, readOnly := s.server.cfg.Dir, s.server.cfg.ReadOnlySFTP
	if dir != "" {
		options = append(options, sftp.WithServerWorkingDirectory(dir))
	}
	if readOnly {
		options = append(options, sftp.ReadOnly())
	}
	result := outcome{}
	server, err := sftp.NewServer(newSFTPFilter(packets{s.ch, s.conn}, dir, readOnly), options...)
	if err == nil {
		err = server.Serve()
	}
	if err != nil {
		s.server.log.Debug("a file transfer ended in an error", "id", id, "err", err)
		result.status = 1
	}
	s.report(result)
}

// packets is the channel as the SFTP server reads and writes it.
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
