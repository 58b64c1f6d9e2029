package access

import (
	"fmt"
	"slices"
	"strings"
)

// warnings name the rules that let in more than they seem to. They are about
// what is known of two CI systems' claims; a policy is used in spite of them.
func (p *policy) warnings() []string {
	var list []string
	for _, i := range p.issuers {
		for _, r := range i.rules {
			if r.role != Agent {
				continue
			}
			for _, text := range traps(r) {
				list = append(list, fmt.Sprintf("line %d: the rule %q of %s %s", r.line, r.name, i.URL, text))
			}
		}
	}
	return list
}

// traps tells a rule's CI system by the claims that it names.
func traps(r rule) []string {
	patterns := map[string][]pattern{}
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return patterns[name] != nil })
	}
	for _, c := range r.claims {
		patterns[c.claim] = c.patterns
	}
	var list []string
	subject := ""
	for _, p := range patterns["sub"] {
		subject = p.text
	}
	switch {
	case has("repository", "repository_owner", "repository_id", "repository_owner_id", "event_name") || strings.HasPrefix(subject, "repo:"): // GitHub
		if !has("repository_id", "repository_owner_id") {
			list = append(list, "goes by names, which whoever takes a name over has, too: add repository_owner_id or repository_id")
		}
		if !has("event_name") {
			list = append(list, "asks for no event_name: a workflow that runs on pull_request_target runs a fork's code with these claims")
		}
		for _, p := range patterns["event_name"] {
			if p.matches("pull_request_target") || p.matches("pull_request") || p.matches("issue_comment") {
				list = append(list, fmt.Sprintf("takes the event_name %q: with it strangers' pull requests may come in", p.text))
			}
		}
	case has("project_path", "project_id", "namespace_path", "namespace_id", "ref_protected") || strings.HasPrefix(subject, "project_path:"): // GitLab
		if !has("project_id", "namespace_id") {
			list = append(list, "goes by names, which whoever takes a name over has, too: add project_id or namespace_id")
		}
		if !slices.ContainsFunc(patterns["ref_protected"], func(p pattern) bool { return p.text == "true" }) ||
			slices.ContainsFunc(patterns["ref_protected"], func(p pattern) bool { return p.matches("false") }) {
			list = append(list, "does not ask for ref_protected: true: a fork's merge request that is run in the project has these claims")
		}
	}
	return list
}
