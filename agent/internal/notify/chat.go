package notify

import (
	"strings"
)

// message is what goes to a service: an object to be encoded as JSON, or a body.
type message struct {
	// method and path are "" where a webhook has but one address.
	method, path string
	object       any
	body         []byte
	kind         string // the body's media type
}

// service puts notices into the form that one service wants. It is used by one
// goroutine.
type service interface {
	// message returns nil where the event is not told there.
	message(Notice) (*message, error)
	// answered is given what the service answered to the last message.
	answered([]byte)
}

// chat is a service whose answers tell nothing.
type chat func(Notice) (*message, error)

func (c chat) message(n Notice) (*message, error) { return c(n) }
func (chat) answered([]byte)                      {}

// object is a JSON object.
type object map[string]any

// slackEscape keeps names from being read as links and mentions:
// https://docs.slack.dev/messaging/formatting-message-text#escaping
var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slack is the payload of an incoming webhook:
// https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks,
// https://docs.slack.dev/reference/block-kit/blocks. text is what notifications
// show.
func slack(n Notice) (*message, error) {
	section := func(kind, text string) object {
		inner := object{"type": kind, "text": text}
		if kind == "mrkdwn" {
			inner["verbatim"] = true
		} else {
			inner["emoji"] = false
		}
		return object{"type": "section", "text": inner}
	}
	blocks := []object{section("plain_text", n.headline(plain))}
	if line := n.line(); line != "" {
		blocks = append(blocks, section("mrkdwn", "```"+slackEscape.Replace(line)+"```"))
	}
	var small []string
	if hint := n.hint(); hint != "" {
		small = append(small, slackEscape.Replace(hint))
	}
	if n.Job.URL != "" {
		small = append(small, "<"+slackEscape.Replace(n.Job.URL)+"|The job>")
	}
	if len(small) > 0 {
		blocks = append(blocks, object{"type": "context", "elements": []object{{"type": "mrkdwn", "text": strings.Join(small, " ")}}})
	}
	return &message{object: object{"text": n.headline(slackEscape.Replace), "blocks": blocks}}, nil
}

// mattermost is the payload of an incoming webhook:
// https://developers.mattermost.com/integrate/webhooks/incoming/
func mattermost(n Notice) (*message, error) {
	return &message{object: object{"text": n.markdown()}}, nil
}

// Discord's flag for a message without previews of its links.
const suppressEmbeds = 1 << 2

// discord is the payload of a webhook, of 2000 characters at most, that mentions
// nobody: https://docs.discord.com/developers/resources/webhook#execute-webhook
func discord(n Notice) (*message, error) {
	return &message{object: object{
		"content": n.markdown(), "flags": suppressEmbeds,
		"allowed_mentions": object{"parse": []string{}},
	}}, nil
}

// teams is the payload of a webhook of the app Workflows: a message with an
// Adaptive Card in it,
// https://support.microsoft.com/office/create-incoming-webhooks-with-workflows-for-microsoft-teams-8ae491c7-0394-4861-ba59-055e33f75498,
// https://adaptivecards.io/explorer/. Text runs are shown as they are; text blocks
// would be read as Markdown.
func teams(n Notice) (*message, error) {
	text := func(run object) object {
		run["type"] = "TextRun"
		return object{"type": "RichTextBlock", "inlines": []object{run}}
	}
	body := []object{text(object{"text": n.headline(plain), "weight": "Bolder"})}
	if line := n.line(); line != "" {
		body = append(body, text(object{"text": line, "fontType": "Monospace"}))
	}
	if hint := n.hint(); hint != "" {
		body = append(body, text(object{"text": hint, "isSubtle": true}))
	}
	card := object{
		"$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
		"type":    "AdaptiveCard", "version": "1.2", "body": body,
		"msteams": object{"width": "Full"},
	}
	if n.Job.URL != "" {
		card["actions"] = []object{{"type": "Action.OpenUrl", "title": "The job", "url": n.Job.URL}}
	}
	return &message{object: object{"type": "message", "attachments": []object{{
		"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": nil, "content": card,
	}}}}, nil
}

// generic is the notice itself, with the version of this form.
func generic(n Notice) (*message, error) {
	return &message{object: struct {
		Version int `json:"version"`
		Notice
	}{1, n}}, nil
}
