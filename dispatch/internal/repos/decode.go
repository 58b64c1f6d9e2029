package repos

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/forge"
)

// document is a configuration as it is written: Albatros' keys and ours.
type document struct {
	Hook struct {
		Token  string `json:"token" yaml:"token"`
		Secret string `json:"secret" yaml:"secret"`
	} `json:"hook" yaml:"hook"`
	Gitea   *place `json:"gitea" yaml:"gitea"`
	Forgejo *place `json:"forgejo" yaml:"forgejo"`
	GitHub  *place `json:"github" yaml:"github"`
	GitLab  *place `json:"gitlab" yaml:"gitlab"`
	Trusted struct {
		Senders []string `json:"senders" yaml:"senders"`
	} `json:"trusted" yaml:"trusted"`
	Inject           string   `json:"inject" yaml:"inject"`
	Flavors          []string `json:"flavors" yaml:"flavors"`
	CancelSuperseded bool     `json:"cancel_superseded" yaml:"cancel_superseded"`
	Debug            struct {
		Keys []string `json:"keys" yaml:"keys"`
	} `json:"debug" yaml:"debug"`
}

// place is a forge.
type place struct {
	URL   string `json:"url" yaml:"url"`
	Token string `json:"token" yaml:"token"`
}

// parseJSON reads Consul's value. Keys that nobody knows are for others.
func parseJSON(key, repo string, text []byte) (*Repo, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, jsonMistake(key, err)
	}
	return d.repo(key, "", repo)
}

// jsonMistake says where the JSON is broken, without a word of what is in it.
func jsonMistake(key string, err error) error {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &kind):
		field := kind.Field
		if field == "" {
			field = "the top"
		}
		return &BadValue{key, field, fmt.Sprintf("it is a JSON %s, and must be %s", firstWord(kind.Value), wanted(kind.Type.Kind().String()))}
	case errors.As(err, &syntax):
		return &BadValue{key, fmt.Sprintf("byte %d", syntax.Offset), "it is no JSON there"}
	}
	return &BadValue{key, "the top", "it is no JSON"}
}

// firstWord of "number 12" is the kind alone.
func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}

func wanted(kind string) string {
	switch kind {
	case "struct", "ptr":
		return "an object"
	case "slice":
		return "a list"
	case "bool":
		return "true or false"
	}
	return "a string"
}

// repo checks what was read. path is put before the fields' names.
func (d *document) repo(key, path, repo string) (*Repo, error) {
	bad := func(field, format string, a ...any) error {
		return &BadValue{key, path + field, fmt.Sprintf(format, a...)}
	}
	r := &Repo{
		URL: repo, Key: key, HookToken: d.Hook.Token, HookSecret: d.Hook.Secret, Trusted: d.Trusted.Senders,
		Inject: []byte(d.Inject), Flavors: d.Flavors, CancelSuperseded: d.CancelSuperseded, DebugKeys: d.Debug.Keys,
	}
	if strings.TrimSpace(r.HookToken) == "" && strings.TrimSpace(r.HookSecret) == "" {
		return nil, bad("hook.token", "it is missing or empty, and there is no hook.secret")
	}
	if len(r.Inject) > MaxInject {
		return nil, bad("inject", "it has %d bytes, and Nomad takes %d at most", len(r.Inject), MaxInject)
	}
	for i, login := range r.Trusted {
		if strings.TrimSpace(login) == "" || strings.ContainsAny(login, "\r\n") {
			return nil, bad(fmt.Sprintf("trusted.senders[%d]", i), "it is empty, or no login")
		}
	}
	for i, flavor := range r.Flavors {
		if !IsFlavor(flavor) {
			return nil, bad(fmt.Sprintf("flavors[%d]", i), "it is no flavour: letters, digits, dots, dashes and underscores, 64 at most")
		}
	}
	for i, line := range r.DebugKeys {
		if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line)); err != nil || len(rest) > 0 || strings.ContainsAny(line, "\r\n") {
			return nil, bad(fmt.Sprintf("debug.keys[%d]", i), "it is no public SSH key")
		}
	}
	for _, p := range []struct {
		name  string
		kind  forge.Kind
		place *place
	}{{"gitea", forge.Gitea, d.Gitea}, {"forgejo", forge.Gitea, d.Forgejo}, {"github", forge.GitHub, d.GitHub}, {"gitlab", forge.GitLab, d.GitLab}} {
		if p.place == nil {
			continue
		}
		name := p.name
		if r.Forge.URL != "" {
			return nil, bad(name, "there are two forges: leave one of %s and %s", r.Forge.Kind, name)
		}
		u, err := url.Parse(p.place.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			return nil, bad(name+".url", "it is no http or https URL of a forge")
		}
		if strings.ContainsFunc(p.place.Token, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, bad(name+".token", "it has a space or a line break in it")
		}
		r.Forge = Forge{Kind: p.kind, URL: strings.TrimRight(p.place.URL, "/"), Token: p.place.Token}
	}
	return r, nil
}

// IsFlavor reports whether a name is a well-formed flavour: it stands in a
// status, in the task's environment, and perhaps in a path of the builder's.
func IsFlavor(name string) bool {
	if name == "" || len(name) > 64 || name[0] == '-' || name[0] == '.' {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	})
}
