package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/clientend"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/tcptows/internal/forward"
)

func program() cmdline.Program {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "bind", Value: "127.0.0.1", Usage: "local `ADDRESS` to listen on"},
		&cli.BoolFlag{Name: "raw", Usage: "forward to any websocket server, without any Converge extension"},
	}
	flags = slices.Concat(flags, clientend.Flags("tcptows"), cmdline.ConnectFlags("tcptows"))
	return cmdline.Program{
		Name:      "tcptows",
		Usage:     "forwards a local TCP port to a websocket",
		ArgsUsage: "LOCALPORT ws[s]://HOST/client/ID",
		Description: "For example:\n" +
			"  tcptows 10000 ws://HOST/client/ID\n" +
			"  ssh  -oServerAliveInterval=10 -p 10000 abc@localhost\n" +
			"  sftp -oServerAliveInterval=10 -oPort=10000 abc@localhost\n\n" +
			"LOCALPORT is 1 to 65535, or 0 for a free one, which is printed.",
		Flags: append(flags, cmdline.LogFlags("tcptows")...),
		Run:   run,
	}
}

func run(ctx context.Context, in *cmdline.Invocation) error {
	args := slices.Concat(in.Args, in.Tail)
	if len(args) != 2 {
		return cmdline.Usagef("give a local port and one URL, such as 10000 ws://HOST/client/ID")
	}
	port, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		return cmdline.Usagef("the local port %q is not a number from 0 to 65535", args[0])
	}
	if in.String("bind") == "" { // net.Listen would take every address
		return cmdline.Usagef("the address of --bind is empty: give one, such as 127.0.0.1")
	}
	target, err := clientend.NewTarget(args[1], in.Bool("raw"))
	if err != nil {
		return cmdline.Usagef("%v", err)
	}
	options, err := cmdline.ConnectOptions(in)
	if err != nil {
		return err
	}
	log, err := cmdline.Logger(in)
	if err != nil {
		return err
	}
	resumption, err := clientend.ReadFlags(in)
	if err != nil {
		return err
	}
	if err := target.Use(options, resumption); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(in.String("bind"), strconv.FormatUint(port, 10)))
	if err != nil {
		return cmdline.ListenError(net.JoinHostPort(in.String("bind"), args[0]), "choose another LOCALPORT, or 0 for a free one", err)
	}
	if _, err := fmt.Fprintf(in.Stdout, "listening on %s\n", listener.Addr()); err != nil {
		_ = listener.Close()
		return fmt.Errorf("cannot print the port: %w", err)
	}
	forwarder := &forward.Forwarder{Dial: target.Dial, Raw: in.Bool("raw"), Logger: log}
	return forwarder.Serve(ctx, listener)
}
