//go:build !reference

// Command agent runs in a job that cannot be reached: it calls out to a
// rendezvous server and serves SSH to whoever is let in through it.
package main

import (
	"os"

	"example.com/converge/agent/internal/initd"
	"example.com/converge/pkg/cmdline"
)

func main() {
	if code, ran := initd.Run(); ran {
		os.Exit(code)
	}
	cmdline.Main(program())
}
