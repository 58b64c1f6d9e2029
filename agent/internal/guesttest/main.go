//go:build !reference

// Command guesttest is the guest of the tests: as much of the agent as runs in a
// container, in a file that is quickly copied.
package main

import (
	"os"

	"example.com/converge/agent/internal/sftpd"
	"example.com/converge/container/guest"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "sftp-server" {
		os.Exit(sftpd.Run(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(guest.Run("guesttest", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
