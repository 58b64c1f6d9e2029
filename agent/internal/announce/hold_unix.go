//go:build !windows

package announce

// HoldCommand is what a user types to hold the session.
const HoldCommand = `touch "$agentdir/.hold"`
