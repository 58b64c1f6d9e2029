package notify

import (
	"fmt"
	"strings"
	"time"

	"example.com/converge/pkg/apicall"
)

// Event is what a notice tells of.
type Event string

// The events.
const (
	// Waiting: the job can be entered, and nobody is in it.
	Waiting Event = "waiting"
	// Connected: somebody has logged in who was not here before.
	Connected Event = "connected"
	// Warning: the session ends soon.
	Warning Event = "warning"
	// Ended: the session is over.
	Ended Event = "ended"
)

// Access is what it takes to come in. None of it is a secret.
type Access struct {
	ID string `json:"id"`
	// SSH and SFTP are the short lines, SSHStock the one for ssh alone.
	SSH       string `json:"ssh"`
	SSHStock  string `json:"ssh_stock"`
	SFTP      string `json:"sftp"`
	ClientURL string `json:"client_url"`
	HostKey   string `json:"host_key"`
	User      string `json:"user"`
	// Password tells that a password is wanted, which the job's log has.
	Password bool `json:"password"`
}

// Notice is one event as it is told: the object of the format json, and what a
// template is given.
type Notice struct {
	Event Event `json:"event"`
	// Text is the event in a sentence, and Time when it was. Send fills both in,
	// and Job.
	Text string    `json:"text"`
	Time time.Time `json:"time"`
	Job  Job       `json:"job"`
	// Access is how to come in.
	Access Access `json:"access"`
	// Who has connected; "" otherwise.
	Who string `json:"who,omitempty"`
	// Reason is why the session has ended, as a short name and as a sentence;
	// "" otherwise.
	Reason   string `json:"reason,omitempty"`
	Sentence string `json:"sentence,omitempty"`
	// Expires is when the session ends if nothing happens; nil if it does not.
	// Left is the time until then.
	Expires *time.Time    `json:"expires"`
	Left    time.Duration `json:"-"`
}

const (
	// maxLine is the longest line to paste that a message has, in bytes: the
	// services cut longer messages anywhere.
	maxLine = 1500
	// maxName is how much of a name of the job, or of somebody, is shown.
	maxName = 200
)

// headline is the event in one sentence. quote makes the names of the job and of
// people harmless where the text goes.
func (n Notice) headline(quote func(string) string) string {
	job := quote(n.title())
	switch n.Event {
	case Waiting:
		return fmt.Sprintf("The job %s waits for somebody to log in.", job)
	case Connected:
		return fmt.Sprintf("%s is in the job %s.", quote(apicall.Clip(n.Who, maxName)), job)
	case Warning:
		return fmt.Sprintf("The session in the job %s ends in %s.", job, span(n.Left))
	}
	return fmt.Sprintf("The job %s goes on. %s", job, n.Sentence)
}

// title names the job; where the CI system does not say, its id does.
func (n Notice) title() string {
	if n.Job.Name == "" {
		return n.Access.ID
	}
	return n.Job.Name
}

// hint is what to know beside the line; "" where there is no line.
func (n Notice) hint() string {
	if n.Event != Waiting {
		return ""
	}
	var parts []string
	if n.line() == "" {
		parts = append(parts, "The line to paste is in the job's log.")
	}
	if n.Expires != nil {
		parts = append(parts, fmt.Sprintf("It waits until %s (%s).", n.Expires.UTC().Format("15:04 MST"), span(n.Left)))
	}
	if n.Access.Password {
		parts = append(parts, "The password is in the job's log.")
	} else {
		parts = append(parts, "It takes a key that may log in.")
	}
	return strings.Join(parts, " ")
}

// line is the line to paste, if the event has one and it can be shown as code
// everywhere.
func (n Notice) line() string {
	line := n.Access.SSH
	if n.Event != Waiting || len(line) > maxLine || strings.ContainsAny(line, "`\n") {
		return ""
	}
	return line
}

// plain quotes for where nothing has a meaning.
func plain(text string) string { return text }

// code quotes as Markdown does what is to be read as it is: no name in it calls
// for anybody's attention.
func code(text string) string { return "`" + strings.ReplaceAll(text, "`", "'") + "`" }

// markdown is the whole message in Markdown, as Mattermost, Discord and the
// forges read it.
func (n Notice) markdown() string {
	var b strings.Builder
	b.WriteString(n.headline(code))
	if line := n.line(); line != "" {
		fmt.Fprintf(&b, "\n```\n%s\n```\n", line)
	} else if n.hint() != "" {
		b.WriteString(" ")
	}
	b.WriteString(n.hint())
	if n.Job.URL != "" {
		fmt.Fprintf(&b, "\n<%s>", n.Job.URL)
	}
	return b.String()
}

// span words a duration.
func span(d time.Duration) string {
	if d < 90*time.Second {
		return fmt.Sprintf("%d s", max(0, d.Round(time.Second)/time.Second))
	}
	minutes := int(d.Round(time.Minute) / time.Minute)
	if minutes < 100 {
		return fmt.Sprintf("%d min", minutes)
	}
	return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
}
