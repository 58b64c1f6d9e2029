// Package fault is bad weather for TCP: a relay that cuts, stalls, delays,
// swallows and changes what goes through it, at the byte where it is told to,
// and moves newcomers from one target to another. The end-to-end tests put it
// before the server. It must know nothing of what decides when the weather
// changes; of what flows it knows only how a resumable stream begins, to tell
// who has one.
package fault
