// Package webhook takes the webhooks of forges: it tells who sent one, verifies
// that it knows the secret, decodes pushes and pull requests, remembers deliveries, and tells
// whether two URLs are of one repository. It covers GitHub, Gitea, Forgejo and
// GitLab, and what sends as they do. It does not serve HTTP, runs no git, and
// does not know what becomes of a push.
//
// The order is: Identify, read the body with a limit, Verify, and only then
// Decode: nothing of a body is looked at before its sender is known to have the
// secret.
package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// MaxBody is the largest payload that a forge sends, in bytes: GitHub's limit,
// which is the highest that is known.
const MaxBody = 25 << 20

// maxID is how long the id of a delivery and the name of an event may be, in
// bytes.
const maxID = 128

// Forge is a kind of sender.
type Forge string

// The forges.
const (
	GitHub  Forge = "github"
	Gitea   Forge = "gitea"
	Forgejo Forge = "forgejo"
	GitLab  Forge = "gitlab"
)

// Errors that callers tell apart.
var (
	// ErrUnknownSender says that no header names an event, so that it is nobody's
	// webhook.
	ErrUnknownSender = errors.New("it is no webhook of GitHub, Gitea, Forgejo or GitLab: there is no header that names an event")
	// ErrNoSecret says that there is nothing to verify with.
	ErrNoSecret = errors.New("there is no secret to verify with")
	// ErrUnsigned says that the sender has shown nothing.
	ErrUnsigned = errors.New("the webhook is not signed: set the secret at the forge")
	// ErrSignature says that the sender does not know the secret.
	ErrSignature = errors.New("the webhook's signature is wrong: the secrets here and at the forge differ")
	// ErrOld says that a signed time is too far from now.
	ErrOld = errors.New("the webhook was signed too long ago, or in the future: check the clocks")
)

// Delivery is one request of a forge, as its headers have it.
type Delivery struct {
	// Forge is who it calls itself.
	Forge Forge
	// Event is the forge's own name of what has happened.
	Event string
	// ID is the forge's name for this delivery, or "". A delivery that is
	// repeated by hand has the same. It is not covered by most signatures.
	ID string

	header http.Header
}

// senders are the forges in the order in which they are looked for: Gitea and
// Forgejo send the headers of those that they come from as well.
var senders = []struct {
	forge  Forge
	event  string
	id     []string
	decode func(d *Delivery, body []byte) (Event, error)
}{
	{Forgejo, "X-Forgejo-Event", []string{"X-Forgejo-Delivery"}, decodeGitHub},
	{Gitea, "X-Gitea-Event", []string{"X-Gitea-Delivery"}, decodeGitHub},
	// The event's own id is the same for all hooks that it calls; the key is
	// the delivery's.
	{GitLab, "X-Gitlab-Event", []string{"Webhook-Id", "Idempotency-Key", "X-Gitlab-Event-Uuid"}, decodeGitLab},
	{GitHub, "X-Github-Event", []string{"X-Github-Delivery"}, decodeGitHub},
}

// Identify reads who sent a request, and what it calls itself. It proves
// nothing. The error is ErrUnknownSender, or says which header is malformed.
func Identify(header http.Header) (*Delivery, error) {
	for _, s := range senders {
		event, err := single(header, s.event)
		if err != nil {
			return nil, err
		}
		if event == "" {
			continue
		}
		d := &Delivery{Forge: s.forge, Event: event, header: header}
		for _, name := range s.id {
			if d.ID, err = single(header, name); err != nil {
				return nil, err
			}
			if d.ID != "" {
				break
			}
		}
		if len(d.Event) > maxID || len(d.ID) > maxID {
			return nil, fmt.Errorf("the name of the event or the id of the delivery is longer than %d bytes", maxID)
		}
		return d, nil
	}
	return nil, ErrUnknownSender
}

// single returns the value of a header that may be there once: of two, which
// one counts would be anybody's guess.
func single(header http.Header, name string) (string, error) {
	switch values := header[http.CanonicalHeaderKey(name)]; len(values) {
	case 0:
		return "", nil
	case 1:
		return strings.TrimSpace(values[0]), nil
	default:
		return "", fmt.Errorf("the header %s is there %d times", name, len(values))
	}
}

// Decode reads a body that Verify has accepted. Events that are neither pushes nor
// pull requests are not looked into. It accepts JSON, and a form with the JSON in its field
// payload, as GitHub and Gitea send if they are told to. The error says what is
// missing; a hostile body costs no more than a few times its size of memory.
func (d *Delivery) Decode(body []byte) (Event, error) {
	text, err := payload(d.header.Get("Content-Type"), body)
	if err != nil {
		return Event{}, err
	}
	return d.DecodeJSON(text)
}

// DecodeJSON is Decode where the body is known to be JSON, whatever its content
// type.
func (d *Delivery) DecodeJSON(text []byte) (Event, error) {
	for _, s := range senders {
		if s.forge == d.Forge {
			return s.decode(d, text)
		}
	}
	return Event{}, ErrUnknownSender
}

// payload takes the JSON out of the body.
func payload(contentType string, body []byte) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return nil, errors.New("the content type of the webhook cannot be read: choose application/json at the forge")
	case kind == "application/json":
		return body, nil
	case kind == "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(body))
		if err != nil || len(form["payload"]) != 1 {
			return nil, errors.New("the form of the webhook has no field payload: choose application/json at the forge")
		}
		return []byte(form.Get("payload")), nil
	}
	return nil, fmt.Errorf("the content type of the webhook is %.64q: choose application/json at the forge", kind)
}

// Digest names a body, for a Window where deliveries have no id.
func Digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
