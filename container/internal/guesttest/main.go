//go:build !reference

// Command guesttest is the guest of the tests: the modes of package guest, and
// an sftp server, as the program has it that carries both.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"

	"example.com/converge/container/guest"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "sftp-server" {
		os.Exit(serve())
	}
	os.Exit(guest.Run("guesttest", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func serve() int {
	server, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout})
	if err == nil {
		err = server.Serve()
	}
	if err != nil && err != io.EOF {
		fmt.Fprintln(os.Stderr, "sftp:", err)
		return 1
	}
	return 0
}
