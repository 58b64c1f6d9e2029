package announce

import "path/filepath"

// HoldCommand is what a user types to hold the session, in cmd or PowerShell.
const HoldCommand = `copy /y nul "%agentdir%\.hold"   (PowerShell: New-Item -Force "$env:agentdir\.hold")`

// HoldOutside is what is typed to hold the session in a shell of the agent's
// machine, told to somebody who is in place, such as "a container of busybox". dir
// is the agent's folder.
func HoldOutside(dir, place string) string {
	return `copy /y nul "` + filepath.Join(dir, ".hold") + `"   (where the agent runs: this is ` + place + ")"
}
