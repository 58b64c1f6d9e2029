package main

import (
	"context"
	"errors"
	"fmt"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/probe"
)

// check is what runs with --check.
func check(ctx context.Context, in *cmdline.Invocation) error {
	server, id, err := rendezvous.ParseAgentURL(in.String("check"))
	if err == nil && id != "" {
		err = errors.New("give the server's URL without an agent's id")
	}
	if err != nil {
		return cmdline.Usagef("--check: %v", err)
	}
	options, err := cmdline.ConnectOptions(in)
	if err != nil {
		return err
	}
	if err := probe.Check(ctx, server, options); err != nil {
		return err
	}
	_, err = fmt.Fprintln(in.Stdout, "ok: an agent could register, and a client reach it")
	return err
}
