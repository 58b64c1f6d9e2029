//go:build !reference

// Command agent runs in a job that cannot be reached: it calls out to a
// rendezvous server and serves SSH to whoever is let in through it.
package main

import (
	"os"

	"example.com/converge/agent/internal/initd"
	"example.com/converge/agent/internal/sftpd"
	"example.com/converge/container/guest"
	"example.com/converge/pkg/cmdline"
)

func main() {
	// In a container this program is the guest: there it may be process 1 as it is,
	// and nothing else of it is wanted.
	if len(os.Args) > 1 {
		switch word := os.Args[1]; {
		case guest.IsMode(word):
			os.Exit(guest.Run("agent", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		case word == sftpServer:
			os.Exit(sftpd.Run(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
		}
	}
	if code, ran := initd.Run(); ran {
		os.Exit(code)
	}
	cmdline.Main(program())
}
