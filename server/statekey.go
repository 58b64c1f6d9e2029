package main

import (
	"fmt"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/ticket"
)

// makeStateKey is what runs with --make-state-key.
func makeStateKey(file string, in *cmdline.Invocation) error {
	if err := ticket.MakeKey(file); err != nil {
		return err
	}
	_, err := fmt.Fprintf(in.Stdout, "made %s: start this server, and all that stand for the same agents, with --state-key %s\n", file, file)
	return err
}
