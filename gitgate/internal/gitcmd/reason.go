package gitcmd

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"

	"example.com/converge/pkg/transport"
)

// Reason is why something failed, as metrics and decisions need it.
type Reason string

// The reasons.
const (
	Other     Reason = "other"
	Network   Reason = "network"   // the server cannot be reached, or hung up
	Auth      Reason = "auth"      // the server does not let us in
	HostKey   Reason = "host-key"  // the server's key is unknown or another
	Key       Reason = "key"       // our private key cannot be used
	NoRef     Reason = "no-ref"    // the branch or tag is not there
	NoRepo    Reason = "no-repo"   // the repository is not there, or we may not see it
	Moved     Reason = "moved"     // the server sends us elsewhere, where the password must not go
	Disk      Reason = "disk"      // there is no room
	Damaged   Reason = "damaged"   // the local repository is broken
	Locked    Reason = "locked"    // another git is at work there
	Conflict  Reason = "conflict"  // one ref's name is in another's way
	Format    Reason = "format"    // the remote's object ids are of another kind than ours
	TLS       Reason = "tls"       // the server's certificate is not trusted
	Timeout   Reason = "timeout"   // a command took too long
	Ended     Reason = "ended"     // this program is told to end
	Mismatch  Reason = "mismatch"  // it is another repository than the configured one
	Refused   Reason = "refused"   // the folder is not ours to change
	Submodule Reason = "submodule" // one of them could not be brought along
	Exec      Reason = "exec"      // the command after it failed
)

// Permanent reports whether trying again soon is of no use: somebody must do
// something first.
func (r Reason) Permanent() bool {
	switch r {
	case HostKey, Key, TLS, NoRef, Moved, Ended, Mismatch, Refused, Exec:
		return true
	}
	return false
}

// Error is a failure with its reason. Its text holds no secret that was given to
// this package.
type Error struct {
	// Command is the git command, or what was tried.
	Command string
	Reason  Reason
	// Text is what was said, in one line, and what to do.
	Text string
	// Err is below it, or nil.
	Err error
}

func (e *Error) Error() string {
	if e.Command == "" {
		return e.Text
	}
	return "git " + e.Command + ": " + e.Text
}

func (e *Error) Unwrap() error { return e.Err }

// Killed reports whether git did not end by itself, so that it may have left its
// lock files.
func Killed(err error) bool {
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return true
	}
	reason := ReasonOf(err)
	return reason == Timeout || reason == Ended
}

// ReasonOf returns the reason of an error; Other where it has none.
func ReasonOf(err error) Reason {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Reason
	case errors.Is(err, syscall.ENOSPC):
		return Disk
	case errors.Is(err, context.Canceled):
		return Ended
	}
	return Other
}

// words tell the reasons, in git's and ssh's own untranslated words; the first
// that is found counts.
var words = []struct {
	reason Reason
	text   []string
	advice string
}{
	{Disk, []string{"No space left on device", "Disk quota exceeded", "File too large", "died of signal 25", "file size limit exceeded"}, "make room"},
	{HostKey, []string{"REMOTE HOST IDENTIFICATION HAS CHANGED"}, "the server shows another key than known_hosts has: find out why before you change the file"},
	{HostKey, []string{"Host key verification failed"}, "put the server's key into known_hosts, after a look at whether it is the right one"},
	{Key, []string{"Load key ", "bad permissions", "no such identity"}, "look at sshPrivKey: it must be a private key that this user can read and nobody else"},
	{Auth, []string{"Permission denied (", "Authentication failed", "could not read Username", "could not read Password", "The requested URL returned error: 401", "The requested URL returned error: 403", "Too many authentication failures"},
		"look at sshPrivKey, or user and passwordFile, and at what the forge lets them see"},
	{NoRef, []string{"couldn't find remote ref", "Remote branch"}, "the branch or tag is not at the remote: what is here stays as it is"},
	{NoRepo, []string{"does not appear to be a git repository", "Repository not found", "repository not found", "The requested URL returned error: 404", "remote: Not Found"},
		"look at url, and at who may see it"},
	{Moved, []string{"The requested URL returned error: 30"}, "the repository has moved, and no other address is shown the password: correct url (GitLab's end in .git)"},
	{Locked, []string{".lock': File exists", "Another git process seems to be running"}, "another git is at work there, or was killed: if there is none, remove the lock file"},
	{Format, []string{"mismatched algorithms"}, ""},
	{TLS, []string{"server certificate verification failed", "SSL certificate problem", "certificate verify failed", "no alternative certificate subject name", "does not match target host name"},
		"give the authority's certificate as caFile, after a look at whether it is the right server"},
	{Conflict, []string{"exists; cannot create", "cannot lock ref", "some local refs could not be updated"}, ""},
	{Refused, []string{"Permission denied", "Read-only file system", "insufficient permission", "dubious ownership"}, "let this user write there"},
	{Disk, []string{"unable to write file"}, "make room: the disk is full, or a quota is used up"}, // git does not say why
	{Damaged, []string{
		"not a git repository", "can only be used inside a git repository", "is corrupt", "object file ", "bad object", "bad tree object", "index file smaller than expected", "bad signature 0x",
		"index file corrupt", "bad index file", "unknown index entry format", "unable to read tree", "unable to read sha1 file", "unable to read object", "missing blob", "missing tree", "packfile ",
		"invalid object", "inflate: data stream error", "unable to unpack", "hash mismatch", "bad config line", "object not found", "fatal: bad revision", "unable to parse object",
		"did not send all necessary objects", "is not a valid object", "reference broken", "broken ref", "failed to resolve HEAD", "unresolved deltas", "bad pack", "bad sha1 file", "improper chunk offset",
	}, ""},
	{Network, []string{
		"Could not resolve host", "unable to access", "Connection refused", "Connection timed out", "Connection reset", "Connection closed", "early EOF", "hung up unexpectedly", "Operation too slow",
		"Network is unreachable", "No route to host", "kex_exchange_identification", "The requested URL returned error: 5", "RPC failed", "Operation timed out", "Broken pipe", "Could not read from remote repository",
	}, "is the server there?"},
}

// explain makes the error of a command that failed.
func explain(ctx context.Context, command string, err error, said string) error {
	e := &Error{Command: command, Reason: Other, Err: err}
	switch {
	case errors.Is(context.Cause(ctx), errTimeout):
		e.Reason, e.Text = Timeout, "it took longer than timeout allows, and was ended"
		return e
	case ctx.Err() != nil:
		e.Reason, e.Text = Ended, "it was ended"
		return e
	case errors.Is(err, exec.ErrNotFound):
		e.Text = "git is not installed, or not on the PATH"
		return e
	}
	said = withoutRemote(said)
	if exit := new(exec.ExitError); errors.As(err, &exit) && !exit.Exited() {
		said += "\n" + err.Error() // the signal
	}
	line := lastLine(said)
	for _, w := range words {
		for _, text := range w.text {
			if !strings.Contains(said, text) {
				continue
			}
			e.Reason = w.reason
			e.Text = lineWith(said, text)
			if w.advice != "" {
				e.Text += ": " + w.advice
			}
			return e
		}
	}
	if line == "" {
		line = err.Error()
	}
	e.Text = line
	return e
}

// withoutRemote leaves out what the server's git says of itself, but for what it
// says of the repository that was asked for.
func withoutRemote(said string) string {
	var kept strings.Builder
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "remote: ") || strings.Contains(line, "ound") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// maxLine is how much of a line is repeated, in bytes.
const maxLine = 300

// lineWith is the line with the words that tell the reason.
func lineWith(said, text string) string {
	for line := range strings.Lines(said) {
		if strings.Contains(line, text) {
			return clean(line)
		}
	}
	return clean(text)
}

// lastLine is the last line that git itself wrote, else the last.
func lastLine(said string) string {
	last := ""
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if strings.HasPrefix(line, "fatal: ") || strings.HasPrefix(line, "error: ") || !strings.HasPrefix(last, "fatal: ") && !strings.HasPrefix(last, "error: ") {
			last = line
		}
	}
	return clean(last)
}

// clean keeps what a server wrote from moving a terminal.
func clean(line string) string {
	line = strings.TrimSpace(line)
	for _, prefix := range []string{"fatal: ", "error: "} {
		line = strings.TrimPrefix(line, prefix)
	}
	if len(line) > maxLine {
		line = strings.ToValidUTF8(line[:maxLine], "") + "…"
	}
	return transport.Printable(line)
}

// Errorf makes an error with a reason.
func Errorf(reason Reason, format string, a ...any) error {
	err := fmt.Errorf(format, a...)
	return &Error{Reason: reason, Text: err.Error(), Err: errors.Unwrap(err)}
}
