// Package trust decides whether a build runs, and whether it gets the secrets. It
// is a pure function of what is known of a push or pull request: nothing is asked
// or read here.
package trust

// Input is what is known.
type Input struct {
	// Sender says that who pushed or opened the pull request is one of the
	// repository's trusted senders.
	Sender bool
	// Pull says that it is a pull request: who opens one need not have pushed what
	// is in it.
	Pull bool
	// Fork says that the code comes from another repository than the one that is
	// configured, or from one that is not known.
	Fork bool
	// Approved says that a trusted sender has approved exactly this commit.
	Approved bool
}

// Decision is what follows.
type Decision struct {
	// Run says that the build may run; else it waits for approval.
	Run bool
	// Secrets says that it gets them, and with them a debug session.
	Secrets bool
}

// Decide judges the sender and the code's origin: secrets need both to be
// trusted, and the sender to have pushed the code. A pull request from a branch of
// the repository does not give them: forges send, with whoever opened or pushed
// last for its sender, the commit that the branch has at that moment, which may be
// anybody's. The push of that commit does. A trusted sender's own pull request from
// a fork waits, too: whoever else may push to the fork is not known here.
func Decide(in Input) Decision {
	switch {
	case in.Approved:
		return Decision{Run: true, Secrets: true}
	case in.Fork:
		return Decision{}
	}
	return Decision{Run: true, Secrets: in.Sender && !in.Pull}
}
