package notify

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"example.com/converge/pkg/forge"
)

// target is one place that notices go to.
type target struct {
	// name is for logs: the format and the host.
	name string
	// address is the webhook's, or the root of a forge's API.
	address *url.URL
	header  http.Header
	// make returns a service for one session.
	make func() (service, error)
	// secrets are the parts of the address, and the token, that must not be
	// repeated anywhere.
	secrets *strings.Replacer
	// forge is the host that the token goes to; "" for webhooks.
	forge string
}

// formats are the webhooks, by the name before the plus sign.
var formats = map[string]func(Notice) (*message, error){
	"slack": slack, "mattermost": mattermost, "teams": teams, "discord": discord, "json": generic,
}

// Words lists what may stand before the plus sign, for messages.
const words = "slack, mattermost, teams, discord, json, template, or github-, gitlab-, gitea- or forgejo- with status or comment"

// FromEnvironment reports whether a target names a place of the job's own forge,
// and so holds no secret.
func FromEnvironment(text string) bool { return text == "status" || text == "comment" }

var errAddress = errors.New("give status, comment or FORMAT+URL, with an https URL")

// parse reads one target. No error repeats any of it but the format and the
// host.
func (c Config) parse(text string) (*target, error) {
	if FromEnvironment(text) {
		return c.ownForge(text)
	}
	format, address, ok := strings.Cut(text, "+")
	if !ok || strings.ContainsAny(format, ":/.?@") { // the plus is one of the URL's own
		format, address = "", text
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.Fragment != "" {
		return nil, errAddress
	}
	if format == "" {
		format = formatOf(u)
	}
	if format == "" {
		return nil, fmt.Errorf("cannot tell the format that %s wants: put it before the URL, as in mattermost+https://…; it is one of %s", u.Host, words)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !forge.Loopback(u.Hostname())) {
		return nil, fmt.Errorf("the URL with the host %s is not an https one: whoever sees a webhook's address can use it", u.Host)
	}
	name, how, isForge := strings.Cut(format, "-")
	kind, kindErr := forge.ParseKind(name)
	switch {
	case format == "template":
		if c.Template == "" {
			return nil, errors.New("the format template wants a template: give --notify-template FILE")
		}
		return c.webhook(format, u, func() (service, error) { return newTemplate(c.Template) })
	case formats[format] != nil:
		return c.webhook(format, u, func() (service, error) { return chat(formats[format]), nil })
	case isForge && kindErr == nil && FromEnvironment(how):
		if u.User != nil || u.RawQuery != "" {
			return nil, errors.New("the page of a commit or pull request has no password and no query: leave them out")
		}
		page, err := forge.ParsePage(kind, u)
		if err != nil {
			return nil, err
		}
		return c.forge(how, place{Page: page})
	}
	return nil, fmt.Errorf("there is no format %.20q: it is one of %s", format, words)
}

// formatOf knows the services that have hosts of their own.
func formatOf(u *url.URL) string {
	host := strings.ToLower(u.Hostname())
	within := func(domain string) bool { return host == domain || strings.HasSuffix(host, "."+domain) }
	switch {
	case host == "hooks.slack.com", host == "hooks.slack-gov.com":
		return "slack"
	case within("discord.com"), within("discordapp.com"):
		return "discord"
	case within("logic.azure.com"), within("api.powerplatform.com"), within("webhook.office.com"):
		return "teams"
	}
	return ""
}

func (c Config) webhook(format string, u *url.URL, makes func() (service, error)) (*target, error) {
	if _, err := makes(); err != nil {
		return nil, err
	}
	return &target{name: format + " at " + u.Host, address: u, make: makes, secrets: secretsOf(u, "")}, nil
}

// ownForge is the job's own.
func (c Config) ownForge(how string) (*target, error) {
	if c.Forge == "" {
		return nil, fmt.Errorf("%w: the environment does not say on which forge the job's repository is; name the page of the commit, such as github-%s+%s", errMissing, how, forge.GitHubPages)
	}
	kind, err := forge.ParseKind(c.Forge)
	if err != nil {
		return nil, fmt.Errorf("%w: %s has neither statuses nor comments that the agent knows", errMissing, c.Forge)
	}
	base, err := forge.ParseBase(cmp.Or(c.ForgeURL, map[forge.Kind]string{forge.GitHub: "https://github.com", forge.GitLab: "https://gitlab.com"}[kind]))
	if err != nil {
		return nil, fmt.Errorf("%w: the address of the job's forge is no plain https URL; name the page of the commit instead, such as github-status+https://…", errMissing)
	}
	if c.Job.Repository == "" {
		return nil, fmt.Errorf("%w: the environment does not name the job's repository; name the page of the commit instead, such as github-status+https://…", errMissing)
	}
	return c.forge(how, place{
		Page: forge.Page{
			Repository: forge.Repository{Kind: kind, Base: base, Path: c.Job.Repository},
			Commit:     c.Job.Commit, Pull: c.Job.Pull,
		},
		pipeline: c.Job.Pipeline,
	})
}

func (c Config) forge(how string, at place) (*target, error) {
	if c.Token == "" {
		return nil, fmt.Errorf("%w: a status or comment wants a token that may write it; give --notify-token @FILE or CONVERGE_AGENT_NOTIFY_TOKEN", errMissing)
	}
	if _, err := at.service(how); err != nil {
		return nil, err
	}
	api, err := url.Parse(at.API())
	if err != nil {
		return nil, errAddress
	}
	return &target{
		name: string(at.Kind) + " " + how + " at " + at.Base.Host, address: api,
		header: forge.Header(at.Kind, c.Token), forge: at.Base.Host,
		make:    func() (service, error) { return at.service(how) },
		secrets: secretsOf(nil, c.Token),
	}, nil
}

// secretPart finds what a webhook's address is made of.
var secretPart = regexp.MustCompile(`[^/&=?;]+`)

// minSecret is the shortest part of an address that can be a secret: words such
// as api and hooks are none.
const minSecret = 8

// secretsOf makes a replacer of all that must not be repeated: the parts of a
// webhook's path and query, as they are written and decoded, and a token.
func secretsOf(u *url.URL, token string) *strings.Replacer {
	var parts []string
	if u != nil {
		for _, part := range secretPart.FindAllString(u.EscapedPath()+"?"+u.RawQuery, -1) {
			decoded, _ := url.PathUnescape(part)
			parts = append(parts, part, decoded)
		}
		for _, values := range u.Query() {
			parts = append(parts, values...)
		}
		if u.User != nil {
			password, _ := u.User.Password()
			parts = append(parts, u.User.Username(), password)
			parts = append(parts, strings.Split(u.User.String(), ":")...)
		}
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return len(s) < minSecret })
	if token != "" {
		parts = append(parts, token)
	}
	// Of two that begin alike the longer comes first.
	slices.SortFunc(parts, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, part := range slices.Compact(parts) {
		pairs = append(pairs, part, "…")
	}
	return strings.NewReplacer(pairs...)
}
