package announce

import (
	"fmt"
	"strings"
)

// Join returns the line by which somebody else types in a shell that is open.
func (a Access) Join() string { return a.line("ssh -t -s") + " converge-join" }

// Watch returns the line by which somebody else watches it.
func (a Access) Watch() string { return a.line("ssh -t -s") + " converge-watch" }

// Share returns what to send to somebody who is to come to a shell that is
// open, with a line break at its end. The password, if there is one, is not in
// it: what a shell prints, others may be watching.
func (a Access) Share() string {
	var b strings.Builder
	fmt.Fprintf(&b, "To type in the newest shell of this job (leave with Enter, then ~.):\n\n  %s\n\n", a.Join())
	fmt.Fprintf(&b, "To watch it (leave with q or ctrl-C):\n\n  %s\n\n", a.Watch())
	b.WriteString("For another shell than the newest add its number, as in: converge-join 2\n")
	if a.Password != "" {
		b.WriteString("The password is in the job's log.\n")
	} else {
		b.WriteString("It takes a key that may log in.\n")
	}
	return b.String()
}
