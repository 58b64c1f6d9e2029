// Package build is what the rooms of dispatch say to each other: what a build is,
// and the interfaces between those that know Nomad, those that show pages, and
// those that decide. It does nothing itself and knows none of them.
package build

import (
	"context"
	"errors"
	"io"
	"time"
)

// State is how a build stands.
type State string

// The states. Waiting and Queued and Running are those of a live build, the rest
// are final.
const (
	// Waiting is a fork's pull request that nobody trusted has approved yet:
	// Nomad knows nothing of it.
	Waiting State = "waiting"
	// Queued is dispatched, and not placed or not started.
	Queued State = "queued"
	// Running has a task that runs; a build that has failed and holds a debug
	// session open is Failure, not Running.
	Running State = "running"
	// Success is the end with exit status 0.
	Success State = "success"
	// Failure is the end with another exit status, or by being cancelled.
	Failure State = "failure"
	// Error is a build that could not be run, or of which the end is not known.
	Error State = "error"
)

// Live reports whether the state may still change by itself.
func (s State) Live() bool { return s == Waiting || s == Queued || s == Running }

// Stream is one of a build's two logs.
type Stream string

// The logs.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Kind is what led to a build.
type Kind string

// The kinds.
const (
	Push        Kind = "push"
	PullRequest Kind = "pull_request"
	Manual      Kind = "run" // dispatch run
)

// Build is one build. It is a value: what Store hands out is a copy that nobody
// changes.
type Build struct {
	// ID is the id of the dispatched job, such as
	// builder/dispatch-1678866433-15aad86a, or wait-HEX for one that waits. It
	// holds a slash: url.PathEscape or QueryEscape it in URLs.
	ID string
	// Repo is the clone URL under which the repository is configured, and on which
	// statuses are set.
	Repo string
	// Origin is the clone URL that the code comes from: Repo, or a fork's.
	Origin string
	// Commit is a full object id; Branch a branch's, or a tag's, short name.
	Commit, Branch string
	// Flavor is the flavour, Job the parameterized job that it is built by.
	Flavor, Job string
	// Sender is the forge's login of who pushed or opened the pull request, or "".
	Sender string
	Kind   Kind
	// Pull is the pull request's number, 0 where there is none.
	Pull int
	// Trusted says that the build has got the repository's secrets.
	Trusted bool
	// ApprovedBy is the login of who approved a fork's commit, or "".
	ApprovedBy string
	// RerunOf is the id of the build that this one repeats, or "".
	RerunOf string

	State State
	// Reason says in a few words why, such as "exit 2", "cancelled" or "queued".
	Reason string
	// Exit is the exit status where there is one, else -1.
	Exit int
	// Allocation is Nomad's, or "" while there is none.
	Allocation string
	// Created, Started and Ended are zero where unknown.
	Created, Started, Ended time.Time
	// Archived says that the logs are kept here, so that Nomad is not asked.
	Archived bool
	// Debug is the debug session, or nil where there never was one. What it holds
	// is for those who may read the repository.
	Debug *Session
}

// Session is a debug session of a failed build.
type Session struct {
	// Line is the ssh command to paste.
	Line string `json:"line"`
	// URL is a link to a terminal in the browser, or "".
	URL string `json:"url,omitempty"`
	// Until is when it ends at the latest.
	Until time.Time `json:"until"`
	// Closed says that it has ended.
	Closed bool `json:"closed,omitempty"`
}

// Report is what a builder tells at POST /builds/ID/debug.
type Report struct {
	// State is failed (the build has failed, no session yet), open or closed.
	State string `json:"state"`
	// Exit is the exit status of the build.
	Exit int `json:"exit"`
	// Session is for the state open.
	Session
}

// The states of a Report.
const (
	ReportFailed = "failed"
	ReportOpen   = "open"
	ReportClosed = "closed"
)

// Who is who asks for something, as the sign-in room knows him.
type Who struct {
	// Login is the login at the forge. It is compared with trusted.senders.
	Login string
	// Forge is the forge's URL, for the page.
	Forge string
	// Local is the command line of this machine, which may do everything.
	Local bool
}

// Errors that callers tell apart with errors.Is.
var (
	// ErrUnknown is a build that nobody knows (404).
	ErrUnknown = errors.New("there is no such build")
	// ErrRefused is somebody who may not (403).
	ErrRefused = errors.New("only the trusted senders of the repository may do this")
	// ErrState is an action that does not fit the build's state (409).
	ErrState = errors.New("the build's state does not allow this")
	// ErrToken is a debug token that is wrong or used up (401).
	ErrToken = errors.New("the token is wrong, or was used before")
	// ErrAway is Nomad, Consul or a forge that cannot be reached (503).
	ErrAway = errors.New("it cannot be reached at this moment")
	// ErrGone is a log that Nomad has deleted before it was archived (410).
	ErrGone = errors.New("the log is gone: Nomad has deleted it")
	// ErrAnew is a log that begins again, since Nomad runs the build a second time
	// where it has lost a machine. The reader goes on with that one.
	ErrAnew = errors.New("the build is run again on another machine, and its log begins anew")
)

// Store knows the builds. Its methods may be called concurrently.
type Store interface {
	// List returns the builds, newest first, at most limit of them; 0 is all.
	List(ctx context.Context, limit int) ([]Build, error)
	// Get returns one. The error is ErrUnknown, or has ErrAway in it. The id of
	// a build that waited leads to the one that it became.
	Get(ctx context.Context, id string) (Build, error)
	// Subscribe returns a channel on which each changed build arrives, of those
	// with this id, or of all for "". A slow reader loses older states of a
	// build, never the newest. The channel is closed when ctx ends or the
	// program does.
	Subscribe(ctx context.Context, id string) <-chan Build
}

// Log is an open log. Close ends reads that wait.
type Log interface {
	io.ReadCloser
	// Offset is where in the log the first byte that it gives stands.
	Offset() int64
}

// Logs opens logs. Its methods may be called concurrently.
type Logs interface {
	// Open returns a build's log from a byte offset; a negative one counts from
	// the log's end as it is now. With follow, reads wait for more while the build
	// is live, also where it has not started, and end with io.EOF at the log's
	// real end; without, they end where the log ends now. It comes from the
	// archive or from Nomad, whoever has it. A read may return ErrAnew, after
	// which reads go on at the beginning. Close ends waiting reads,
	// and so does ctx. The error is ErrUnknown, ErrGone or has ErrAway in it.
	Open(ctx context.Context, id string, log Stream, offset int64, follow bool) (Log, error)
}

// Actions change builds. All check that who is trusted by the repository
// (ErrRefused). Their methods may be called concurrently.
type Actions interface {
	// Cancel stops a live build; ErrState for one that has ended.
	Cancel(ctx context.Context, who Who, id string) error
	// Rerun dispatches a build again, with secrets only where the first had them,
	// and returns the new build's id.
	Rerun(ctx context.Context, who Who, id string) (string, error)
	// Approve dispatches a build that waits, with the secrets, and returns its
	// new id; ErrState where a newer push has taken its place.
	Approve(ctx context.Context, who Who, id string) (string, error)
}

// Debug takes what builders report. Its methods may be called concurrently.
type Debug interface {
	// Report checks the build's token, which is good for each state once, in their
	// order, and only while the build is live in Nomad; and changes build and
	// status. The first may have been lost: open says it, too. The error is ErrUnknown, ErrToken or ErrState.
	Report(ctx context.Context, id, token string, r Report) error
}

// Guard answers questions about a repository's configuration.
type Guard interface {
	// HookToken reports whether a token is the repository's hook token, which
	// opens GET /build for scripts. An unknown repository is false, in the same time.
	HookToken(ctx context.Context, repo, token string) (bool, error)
	// Trusted reports whether a login may act on the repository's builds.
	Trusted(ctx context.Context, repo string, who Who) (bool, error)
}
