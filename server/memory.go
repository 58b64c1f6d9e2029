package main

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much the heap may grow between two collections, in per
// cent. The relay makes no garbage, so that collecting often costs nothing
// while bytes move; what it takes is felt at logins only, and what it saves is
// half of the memory for each idle connection.
const gcPercent = 25

// tuneMemory sets it, unless GOGC does.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
