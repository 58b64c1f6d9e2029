package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/template"
	"time"
)

// maxBody is the largest message that a template makes, in bytes.
const maxBody = 64 << 10

// newTemplate reads a text/template and tries it on every event, so that a wrong
// name is found before anybody waits for a notice. Besides the usual functions it
// has json, which quotes a value.
func newTemplate(text string) (service, error) {
	t, err := template.New("notice").Funcs(template.FuncMap{"json": quoteJSON}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the template cannot be read: %w", err)
	}
	when := time.Unix(0, 0).UTC()
	for _, event := range []Event{Waiting, Connected, Warning, Ended} {
		sample := Notice{Event: event, Text: "text", Time: when, Expires: &when, Job: Job{Name: "job"}, Access: Access{ID: "id", SSH: "ssh"}}
		if event == Ended {
			sample.Expires = nil
		}
		if _, err := render(t, sample); err != nil {
			return nil, err
		}
	}
	return chat(func(n Notice) (*message, error) {
		body, err := render(t, n)
		if err != nil || len(body) == 0 {
			return nil, err // an empty one says that the event is not told
		}
		kind := "text/plain; charset=utf-8"
		if json.Valid(body) {
			kind = "application/json"
		}
		return &message{body: body, kind: kind}, nil
	}), nil
}

func render(t *template.Template, n Notice) ([]byte, error) {
	var b bounded
	if err := t.Execute(&b, n); err != nil {
		return nil, fmt.Errorf("the template cannot be filled in for the event %s: %w", n.Event, err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// bounded takes no more than maxBody.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxBody {
		return 0, errors.New("the message is larger than 64 KiB")
	}
	return b.Buffer.Write(p)
}

// quoteJSON is the function json of templates.
func quoteJSON(v any) (string, error) {
	text, err := encode(v)
	return strings.TrimSpace(string(text)), err
}

// encode writes JSON without the escapes that are for pages: people paste from
// it.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("cannot encode the message: %w", err)
	}
	return b.Bytes(), nil
}
