// Package initd lets a program be the first process of a container. The kernel
// makes process 1 the parent of all orphans, who stay as zombies until it reaps
// them, and spares it the signals that it does not handle. A program that starts
// children of its own cannot reap everybody's beside: it would take the statuses
// of its own away from whoever waits for them. So process 1 becomes a loop that
// does nothing but reap and pass signals on, and the program runs as its child.
//
// It knows nothing of the program.
package initd
