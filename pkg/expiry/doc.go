// Package expiry decides how long a session stays: when a job that waits for an
// engineer gives up, how activity and a .hold file make it stay, when users are
// warned, and why it ends.
//
// The core (New and Step) is pure: (state, event, now) in, (state, effects,
// next wake-up) out. Nothing in it sleeps, reads a file or prints. Loop is the
// one goroutine and the one timer that own a State; everything else (ssh
// connections, local commands, signals, the watcher in the hold sub-package)
// sends it events and is told effects.
//
// The package knows nothing of SSH, of terminals, of sockets, of exit codes or
// of files: a caller turns those into events, and effects into those. spec.md
// beside this file has the state table, the formula and the diagram.
//
// Time. Inside the core all instants are offsets from the start, taken from the
// monotonic reading of the time.Time values passed in, so that a step of the
// wall clock neither ends a session early nor prolongs one. Time during which
// the machine is suspended does not count where the platform's monotonic clock
// stops meanwhile (Linux, macOS). The modification time of a .hold file is a
// wall time; whoever observes the file turns it, at that moment, into a distance
// from now (HoldTouched), and the core never looks at it again.
package expiry
