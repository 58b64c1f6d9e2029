package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"example.com/converge/agent/internal/control"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/transport"
)

// localCommands are those that steer an agent from any shell of its job.
func localCommands() []cmdline.Program {
	const found = "It is typed in any shell of the job, by the user that the agent runs as. Inside a session\n" +
		"it goes to that session's agent, elsewhere to the only one, or to the one of --id."
	command := func(op control.Op, usage string) cmdline.Program {
		return cmdline.Program{
			Name: string(op), Usage: usage, Description: found,
			Flags: []cli.Flag{&cli.StringFlag{Name: "id", Usage: "`ID` of the agent, where several run"}},
			Run: func(ctx context.Context, in *cmdline.Invocation) error {
				if len(in.Args) != 0 || in.HasTail {
					return cmdline.Usagef("%s takes no argument", op)
				}
				response, err := control.Environment().Do(ctx, in.String("id"), control.Request{Op: op})
				if err != nil {
					return err
				}
				return answer(in.Stdout, response)
			},
		}
	}
	hold := command(control.Hold, "keeps the session after the last logout, and starts the expiry anew")
	extend := command(control.Extend, "moves the end of the session later, such as by 30m")
	extend.ArgsUsage = "DURATION"
	extend.Run = func(ctx context.Context, in *cmdline.Invocation) error {
		if len(in.Args) != 1 || in.HasTail {
			return cmdline.Usagef("give one duration, such as 30m or 1h30m")
		}
		by, err := time.ParseDuration(in.Args[0])
		if err != nil || by <= 0 {
			return cmdline.Usagef("%q is no duration above 0: give one such as 30m or 1h30m", in.Args[0])
		}
		response, err := control.Environment().Do(ctx, in.String("id"), control.Request{Op: control.Extend, By: by})
		if err != nil {
			return err
		}
		return answer(in.Stdout, response)
	}
	resume := command(control.Resume, "ends the session, so that the job goes on")
	status := command(control.StatusOp, "tells how the session stands")
	status.Flags = append(status.Flags, &cli.BoolFlag{Name: "json", Usage: "as one JSON object, for programs"})
	plain := status.Run
	status.Run = func(ctx context.Context, in *cmdline.Invocation) error {
		if !in.Bool("json") || len(in.Args) != 0 || in.HasTail {
			return plain(ctx, in)
		}
		response, err := control.Environment().Do(ctx, in.String("id"), control.Request{Op: control.StatusOp})
		if err != nil {
			return err
		}
		text, err := json.MarshalIndent(response.Status, "", "  ")
		if err != nil {
			return fmt.Errorf("cannot encode the status: %w", err)
		}
		return write(in.Stdout, string(text)+"\n")
	}
	share := command(control.Share, "prints the lines by which others join or watch a shell")
	return []cmdline.Program{hold, extend, resume, status, share}
}

// isLocal reports whether a word is the name of a local command.
func isLocal(word string) bool {
	for _, c := range localCommands() {
		if c.Name == word {
			return true
		}
	}
	return false
}

// answer prints the text of a response, whatever the other side may have put
// into it.
func answer(w io.Writer, r control.Response) error {
	var b strings.Builder
	for line := range strings.Lines(r.Text) {
		b.WriteString(transport.Printable(strings.TrimRight(line, "\r\n")) + "\n")
	}
	return write(w, b.String())
}

func write(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("cannot write the answer: %w", err)
	}
	return nil
}
