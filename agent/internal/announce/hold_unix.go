//go:build !windows

package announce

import (
	"path/filepath"

	"example.com/converge/pkg/shellword"
)

// HoldCommand is what a user types to hold the session.
const HoldCommand = `touch "$agentdir/.hold"`

// HoldOutside is what is typed to hold the session in a shell of the agent's
// machine, told to somebody who is in place, such as "a container of busybox". dir
// is the agent's folder.
func HoldOutside(dir, place string) string {
	return "touch " + shellword.Quote(filepath.Join(dir, ".hold")) + " # where the agent runs: this is " + place
}
