// Package sftpd serves files by the SSH file transfer protocol, version 3
// (draft-ietf-secsh-filexfer-02), over any stream: those of a channel, or the
// standard streams of a process that an SSH server has started elsewhere. The
// library pkg/sftp does the work behind a filter that does what the library does
// not.
//
// It knows nothing of SSH, and takes whoever writes to the stream for somebody who
// may do what this process may.
package sftpd

import (
	"errors"
	"fmt"
	"io"

	"github.com/pkg/sftp"
)

// Options say what is served.
type Options struct {
	// Dir is where relative paths start; "" is the working folder.
	Dir string
	// ReadOnly refuses what would change anything.
	ReadOnly bool
}

// Serve serves files until the stream has ended, and returns nil after that. The
// stream is closed when a client does not keep to the protocol.
func Serve(stream io.ReadWriteCloser, o Options) error {
	options := []sftp.ServerOption{sftp.WithAllocator(), sftp.WithMaxTxPacket(maxData)}
	if o.Dir != "" {
		options = append(options, sftp.WithServerWorkingDirectory(o.Dir))
	}
	if o.ReadOnly {
		options = append(options, sftp.ReadOnly())
	}
	server, err := sftp.NewServer(newFilter(stream, o.Dir, o.ReadOnly), options...)
	if err != nil {
		return err
	}
	return server.Serve()
}

// Run is the main function of a program that serves files on its standard
// streams, as OpenSSH's sftp-server does, of whose options it knows -R: nothing
// may be changed. It returns the exit status.
func Run(args []string, in io.ReadCloser, out io.WriteCloser, errs io.Writer) int {
	var o Options
	for _, arg := range args {
		if arg != "-R" {
			fmt.Fprintf(errs, "sftp-server: unknown argument %q: there is only -R\n", arg)
			return 2
		}
		o.ReadOnly = true
	}
	if err := Serve(standard{in, out}, o); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(errs, "sftp-server:", err)
		return 1
	}
	return 0
}

// standard is a pair of standard streams.
type standard struct {
	io.Reader
	out io.WriteCloser
}

func (s standard) Write(p []byte) (int, error) { return s.out.Write(p) }

// Close closes the output, at which the client sees the end. A read of the input
// that waits cannot be ended.
func (s standard) Close() error { return s.out.Close() }
