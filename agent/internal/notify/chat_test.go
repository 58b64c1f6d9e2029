package notify

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"example.com/converge/pkg/apicall"
	"example.com/converge/pkg/watchtest"
)

const secretPath = "/hooks/T0SECRET0/B0SECRET0/XXSECRETXX"

// at walks into a decoded object by keys and indexes.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			o, ok := v.(map[string]any)
			if !ok {
				t.Fatalf("no object at %v of %v: %v", step, path, v)
			}
			v = o[step]
		case int:
			list, ok := v.([]any)
			if !ok || len(list) <= step {
				t.Fatalf("no list with %v of %v: %v", step, path, v)
			}
			v = list[step]
		}
	}
	return v
}

func text(t *testing.T, v any, path ...any) string {
	t.Helper()
	s, ok := at(t, v, path...).(string)
	if !ok {
		t.Fatalf("%v is no string: %v", path, at(t, v, path...))
	}
	return s
}

// receive tells the story to a service, and returns the four messages.
func receive(t *testing.T, format string) []map[string]any {
	t.Helper()
	r := newReceiver(t, nil)
	var j watchtest.Output
	tell(t, Config{
		Targets: []string{format + "+" + r.URL + secretPath + "?sig=S1GNATURE9"}, CAFile: r.ca, Job: job, Logger: logger(&j),
		Template: `{"text": {{json .Text}}, "line": {{json .Access.SSH}}}`,
	})
	var all []map[string]any
	for range story() {
		got := r.next(t)
		if got.method != "POST" || got.path != secretPath || got.query != "sig=S1GNATURE9" || got.header.Get("User-Agent") != "converge-agent" {
			t.Errorf("%s %s?%s %v", got.method, got.path, got.query, got.header)
		}
		all = append(all, got.object(t))
	}
	if said := j.String(); strings.Contains(said, "SECRET") || strings.Contains(said, "S1GNATURE9") {
		t.Errorf("the log has the address:\n%s", said)
	}
	return all
}

// keys wants an object to have nothing but these.
func keys(t *testing.T, o any, want ...string) {
	t.Helper()
	for key := range o.(map[string]any) {
		if !slices.Contains(want, key) {
			t.Errorf("there is an unknown field %q", key)
		}
	}
}

// TestSlack checks what Slack documents of messages: text, and blocks of known
// types within their limits.
func TestSlack(t *testing.T) {
	for i, m := range receive(t, "slack") {
		keys(t, m, "text", "blocks")
		if got := text(t, m, "text"); !strings.Contains(got, "acme/app &lt;!channel&gt; @everyone") && i != 4 {
			t.Errorf("text is %q", got)
		}
		blocks := at(t, m, "blocks").([]any)
		for _, block := range blocks {
			switch kind := text(t, block, "type"); kind {
			case "section":
				keys(t, block, "type", "text")
				inner := text(t, block, "text", "text")
				if n := utf8.RuneCountInString(inner); n == 0 || n > 3000 {
					t.Errorf("a section of %d characters", n)
				}
				switch text(t, block, "text", "type") {
				case "plain_text":
					keys(t, at(t, block, "text"), "type", "text", "emoji")
				case "mrkdwn":
					keys(t, at(t, block, "text"), "type", "text", "verbatim")
				default:
					t.Errorf("%v", block)
				}
			case "context":
				keys(t, block, "type", "elements")
				if got := text(t, block, "elements", 0, "text"); !strings.HasSuffix(got, "<https://git.example/acme/app/actions/runs/7|The job>") {
					t.Errorf("context %q", got)
				}
			default:
				t.Errorf("a block of type %q", kind)
			}
		}
		if i == 0 {
			if got := text(t, blocks, 1, "text", "text"); got != "```"+line+"```" {
				t.Errorf("the line is %q", got)
			}
			if got := text(t, blocks, 2, "elements", 0, "text"); !strings.Contains(got, "until 12:10 UTC (10 min). It takes a key that may log in.") {
				t.Errorf("the hint is %q", got)
			}
		}
	}
}

// TestMattermost: a text in Markdown, shorter than a post may be, in which no name
// stands outside of code.
func TestMattermost(t *testing.T) {
	wants := []string{
		"The job `acme/app <!channel> @everyone *te_st* #7` waits for somebody to log in.\n```\n" + line + "\n```\n" +
			"It waits until 12:10 UTC (10 min). It takes a key that may log in.\n<https://git.example/acme/app/actions/runs/7>",
		"`abc (octo_cat at github.com)` is in the job `acme/app <!channel> @everyone *te_st* #7`.\n<https://git.example/acme/app/actions/runs/7>",
		"The session in the job `acme/app <!channel> @everyone *te_st* #7` ends in 60 s.\n<https://git.example/acme/app/actions/runs/7>",
		"The job `acme/app <!channel> @everyone *te_st* #7` goes on. The session ended because its last user logged out.\n<https://git.example/acme/app/actions/runs/7>",
	}
	for i, m := range receive(t, "mattermost") {
		keys(t, m, "text")
		if got := text(t, m, "text"); got != wants[i] || len(got) > 16383 {
			t.Errorf("%q, want %q", got, wants[i])
		}
	}
}

// TestDiscord: content of 2000 characters at most, that mentions nobody.
func TestDiscord(t *testing.T) {
	for i, m := range receive(t, "discord") {
		keys(t, m, "content", "flags", "allowed_mentions")
		content := text(t, m, "content")
		if n := utf8.RuneCountInString(content); n == 0 || n > 2000 {
			t.Errorf("%d characters", n)
		}
		if parse := at(t, m, "allowed_mentions", "parse").([]any); len(parse) != 0 {
			t.Errorf("it mentions %v", parse)
		}
		if m["flags"] != float64(4) {
			t.Errorf("flags %v", m["flags"])
		}
		if i == 0 && !strings.Contains(content, "\n```\n"+line+"\n```\n") {
			t.Errorf("no line in %q", content)
		}
	}
}

// TestTeams: a message with one Adaptive Card of a version that Teams shows,
// without anything that would be read as Markdown.
func TestTeams(t *testing.T) {
	for i, m := range receive(t, "teams") {
		keys(t, m, "type", "attachments")
		if text(t, m, "type") != "message" || len(at(t, m, "attachments").([]any)) != 1 {
			t.Errorf("%v", m)
		}
		attachment := at(t, m, "attachments", 0)
		keys(t, attachment, "contentType", "contentUrl", "content")
		if text(t, attachment, "contentType") != "application/vnd.microsoft.card.adaptive" || at(t, attachment, "contentUrl") != nil {
			t.Errorf("%v", attachment)
		}
		card := at(t, attachment, "content")
		keys(t, card, "$schema", "type", "version", "body", "actions", "msteams")
		if text(t, card, "type") != "AdaptiveCard" || text(t, card, "version") != "1.2" || text(t, card, "$schema") != "http://adaptivecards.io/schemas/adaptive-card.json" {
			t.Errorf("%v", card)
		}
		for _, block := range at(t, card, "body").([]any) {
			keys(t, block, "type", "inlines")
			run := at(t, block, "inlines", 0)
			keys(t, run, "type", "text", "weight", "fontType", "isSubtle")
			if text(t, block, "type") != "RichTextBlock" || text(t, run, "type") != "TextRun" || text(t, run, "text") == "" {
				t.Errorf("%v", block)
			}
		}
		if text(t, card, "actions", 0, "type") != "Action.OpenUrl" || text(t, card, "actions", 0, "url") != job.URL || text(t, card, "actions", 0, "title") == "" {
			t.Errorf("%v", card)
		}
		if encoded, _ := json.Marshal(m); len(encoded) > 28<<10 {
			t.Errorf("%d bytes", len(encoded))
		}
		if i == 0 && text(t, card, "body", 1, "inlines", 0, "text") != line {
			t.Errorf("%v", card)
		}
	}
}

// TestGeneric is the form that docs/notices.md describes.
func TestGeneric(t *testing.T) {
	all := receive(t, "json")
	for i, event := range []string{"waiting", "connected", "warning", "ended"} {
		m := all[i]
		keys(t, m, "version", "event", "text", "time", "job", "access", "who", "reason", "sentence", "expires")
		keys(t, m["job"], "system", "name", "url", "repository", "commit")
		keys(t, m["access"], "id", "ssh", "ssh_stock", "sftp", "client_url", "host_key", "user", "password")
		if m["version"] != float64(1) || m["event"] != event || text(t, m, "access", "ssh") != line || at(t, m, "access", "password") != false ||
			text(t, m, "job", "commit") != sha || text(t, m, "text") == "" || !strings.HasSuffix(text(t, m, "time"), "Z") {
			t.Errorf("%v", m)
		}
		_, hasWho := m["who"]
		_, hasReason := m["reason"]
		if hasWho != (event == "connected") || hasReason != (event == "ended") || (m["expires"] != nil) != (event == "waiting" || event == "warning") {
			t.Errorf("%v", m)
		}
	}
}

func TestTemplate(t *testing.T) {
	for _, m := range receive(t, "template") {
		keys(t, m, "text", "line")
		if text(t, m, "line") != line {
			t.Errorf("%v", m)
		}
	}
	t.Run("plain, and silent about some", func(t *testing.T) {
		r := newReceiver(t, nil)
		tell(t, Config{
			Targets: []string{"template+" + r.URL}, CAFile: r.ca,
			Template: `{{if eq .Event "ended"}}over: {{.Reason}}{{end}}`,
		})
		got := r.next(t)
		if string(got.body) != "over: last-logout" || got.header.Get("Content-Type") != "text/plain; charset=utf-8" || len(r.got) != 0 {
			t.Errorf("%s %q, and %d more", got.header, got.body, len(r.got))
		}
	})
	for text, want := range map[string]string{
		"{{.Nothing}}":                          "can't evaluate field Nothing",
		"{{":                                    "the template cannot be read",
		`{{if eq .Event "ended"}}{{.X}}{{end}}`: "for the event ended",
		`{{range 100000}}{{"0123456789"}}{{end}}`: "larger than 64 KiB",
		"": "give --notify-template",
	} {
		if _, err := New(Config{Targets: []string{"template+https://x"}, Template: text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestPassword: it is said that there is one, nowhere what it is.
func TestPassword(t *testing.T) {
	n := story()[0]
	n.Access.Password = true
	if got := n.hint(); !strings.Contains(got, "The password is in the job's log.") || strings.Contains(got, "key") {
		t.Errorf("%q", got)
	}
}

// TestNoLine: a line that cannot be shown whole is not shown at all.
func TestNoLine(t *testing.T) {
	for _, ssh := range []string{"", strings.Repeat("x", maxLine+1), "a`b", "a\nb"} {
		n := story()[0]
		n.Access.SSH = ssh
		if got := n.markdown(); strings.Contains(got, "```") || !strings.Contains(got, "The line to paste is in the job's log.") {
			t.Errorf("%q", got)
		}
	}
}

// TestLongest fits the smallest limit, Discord's.
func TestLongest(t *testing.T) {
	n := Notice{Event: Waiting, Access: Access{SSH: strings.Repeat("x", maxLine), Password: true}, Expires: &expires, Left: 9999 * 60e9}
	n.Job.Name = apicall.Clip(strings.Repeat("n", 1000), maxName)
	if got := utf8.RuneCountInString(n.markdown()); got > 2000 {
		t.Errorf("%d characters without the job's address", got)
	}
}
