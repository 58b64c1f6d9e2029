package clientend

import (
	"time"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/resume"
)

// maxWindow is the longest --resume-window, and its default: the agent has a
// shorter one.
const maxWindow = 24 * time.Hour

// Flags returns --resume-window and --resume-buffer, which ReadFlags reads.
func Flags(program string) []cli.Flag {
	const category = "Lost connections"
	return []cli.Flag{
		&cli.DurationFlag{
			Name: "resume-window", Category: category,
			Value: maxWindow, DefaultText: "as long as the agent waits",
			Usage:   "try for this `DURATION` at most to come back when the connection is lost; 0 ends the session with it",
			EnvVars: cmdline.EnvVars(program, "resume-window"),
		},
		&cli.StringFlag{
			Name: "resume-buffer", Category: category, Value: "4MiB",
			Usage:   "`SIZE` of what each direction may hold that the other end does not have yet, 64KiB to 64MiB",
			EnvVars: cmdline.EnvVars(program, "resume-buffer"),
		},
	}
}

// ReadFlags reads the options of Flags. Its error is a usage error.
func ReadFlags(in *cmdline.Invocation) (Resumption, error) {
	window := in.Duration("resume-window")
	if window != 0 && (window < time.Second || window > maxWindow) {
		return Resumption{}, cmdline.Usagef("--resume-window is %v: it must be from 1s to 24h, or 0", window)
	}
	buffer, err := cmdline.Bytes(in, "resume-buffer", resume.MinBuffer, resume.MaxBuffer)
	return Resumption{Window: window, Buffer: buffer}, err
}
