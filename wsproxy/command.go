package main

import (
	"context"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/clientend"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/transport"
	"example.com/converge/wsproxy/internal/hangup"
	"example.com/converge/wsproxy/internal/pipe"
)

func program() cmdline.Program {
	flags := []cli.Flag{
		&cli.BoolFlag{Name: "raw", Usage: "be a plain pipe to any websocket server, without any Converge extension"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "do not say on standard error when the connection is lost and when it is back"},
	}
	return cmdline.Program{
		Name:      "wsproxy",
		Usage:     "joins standard input and output to a websocket, as a ProxyCommand of ssh",
		ArgsUsage: "ws[s]://HOST/client/ID",
		Description: "wsproxy ssh \"URL#PIN\", as an agent prints it, does all at once. By hand:\n" +
			"  ssh  -oServerAliveInterval=10 -oProxyCommand=\"wsproxy ws://HOST/client/ID\" abc@localhost\n" +
			"  sftp -oServerAliveInterval=10 -oProxyCommand=\"wsproxy ws://HOST/client/ID\" abc@localhost",
		Flags: slices.Concat(flags, clientend.Flags("wsproxy"), cmdline.ConnectFlags("wsproxy"),
			cmdline.LogFlagsAt("wsproxy", "warn")), // standard error is ssh's, too
		Commands: slices.Concat(toolCommands(), []cmdline.Program{sshConfig(), keepPin(), byName()}),
		Run:      run,
	}
}

func run(ctx context.Context, in *cmdline.Invocation) error {
	args := slices.Concat(in.Args, in.Tail)
	if len(args) != 1 {
		return cmdline.Usagef("give one URL, such as ws://HOST/client/ID")
	}
	target, err := clientend.NewTarget(args[0], in.Bool("raw"))
	if err != nil {
		return cmdline.Usagef("%v", err)
	}
	options, resumption, err := connecting(in)
	if err != nil {
		return err
	}
	if err := target.Use(options, resumption); err != nil {
		return err
	}
	return join(ctx, in, target)
}

// connecting reads the options on how to connect.
func connecting(in *cmdline.Invocation) (transport.Options, clientend.Resumption, error) {
	options, err := cmdline.ConnectOptions(in)
	if err != nil {
		return options, clientend.Resumption{}, err
	}
	resumption, err := clientend.ReadFlags(in)
	return options, resumption, err
}

// join connects and moves bytes until one end has ended.
func join(ctx context.Context, in *cmdline.Invocation, target *clientend.Target) error {
	// ssh ends its ProxyCommand by SIGHUP. Under nohup that is ignored, and
	// stays so: the terminal's end is not to end the session.
	if !signal.Ignored(syscall.SIGHUP) {
		var stop func()
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	// SIGPIPE is caught, not ignored, so that a broken stdout is an error of
	// the write and no sudden death.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	defer signal.Stop(pipes)

	broken, release := hangup.Watch(in.Stdout)
	defer release()
	log, err := cmdline.Logger(in)
	if err != nil {
		return err
	}
	events := &clientend.Events{
		Notice: notices(in),
		Session: func(id, first string) {
			if first == "" {
				log.Info("connected", "session", id)
			} else {
				log.Info("going on over a new connection", "session", id, "first", first)
			}
		},
	}
	conn, err := dial(ctx, target, broken, events)
	if conn == nil {
		return err
	}
	pipe.Widen(in.Stdin)
	pipe.Widen(in.Stdout)
	local := clientend.Local{Broken: broken}
	var free, freeOut bool
	local.In, free = pipe.In(in.Stdin)
	local.Out, freeOut = pipe.Out(in.Stdout)
	if free && freeOut && os.Getenv("GOMAXPROCS") == "" {
		// Nothing blocks a thread from here on, and to wake a second one for
		// what one of them moves takes longer than to move it.
		runtime.GOMAXPROCS(1)
	}
	return clientend.Join(ctx, conn, local)
}

// dial connects. Without a connection and without an error it returns when
// nobody waits for one any more: when ctx ends or stdout breaks.
func dial(ctx context.Context, target *clientend.Target, broken <-chan struct{}, on *clientend.Events) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-broken:
			cancel()
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel()
	conn, err := target.Dial(ctx, on)
	if err != nil && ctx.Err() != nil {
		return nil, nil
	}
	return conn, err
}
