// Package actor reads from a job's environment which CI system runs it, who
// triggered it, whether a stranger may have, and whether everybody can read
// its log. It knows the variables that the systems document, and one file,
// the event of GitHub's and Gitea's actions; it must know nothing of keys, and
// asks nobody over the network.
//
// What it reads are claims: the job's own code, and on some systems whoever
// may set a pipeline's variables, could have written them. They decide whom to
// let in, never whether a server is to be trusted.
package actor

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"example.com/converge/agent/internal/forgekeys"
)

// Job is what the environment says.
type Job struct {
	// System is the CI system's name for people; "" where none is known.
	System string
	// Forge is where Name has an account, and Address that forge's URL. Forge
	// is "" where the system does not say; Address may be "" then too.
	Forge   forgekeys.Forge
	Address string
	// Name is the login of who triggered the job; "" where there is none.
	Name string
	// Stranger says why somebody who may not change the repository could have
	// triggered the job, or why that cannot be excluded; "" if none could.
	Stranger string
	// Unknown says why Name is missing, or is the name of nobody; "" if it is
	// somebody's.
	Unknown string
	// Public says why everybody can read the job's log; "" where the
	// environment does not say that.
	Public string
	// Unsaid is what the environment does not tell, and why, where it cannot be
	// known whether everybody can read the log: "whether …: …". It is "" where
	// that was told, and on systems that never do.
	Unsaid string
}

// system is one CI system: how it is recognised, and what it tells.
type system struct {
	name   string
	detect func(environment) bool
	read   func(environment, *Job)
}

// systems are looked at in this order: Gitea and Forgejo set GitHub's
// variables too.
var systems = []system{
	{"Forgejo Actions", isTrue("FORGEJO_ACTIONS"), readGitea},
	{"Gitea Actions", isTrue("GITEA_ACTIONS"), readGitea},
	{"GitHub Actions", isTrue("GITHUB_ACTIONS"), readGitHub},
	{"GitLab CI", isTrue("GITLAB_CI"), readGitLab},
	{"CircleCI", isTrue("CIRCLECI"), readCircle},
	{"Azure Pipelines", isTrue("TF_BUILD"), readAzure},
	{"Woodpecker", isWoodpecker, readWoodpecker},
	{"Drone", isTrue("DRONE"), readDrone},
	{"Jenkins", isJenkins, readJenkins},
}

// environment looks a variable up; one that is not set is "".
type environment func(string) string

// Detect reads the environment; getenv is os.Getenv, or a stand-in for it.
func Detect(getenv func(string) string) Job {
	env := environment(getenv)
	for _, s := range systems {
		if s.detect(env) {
			job := Job{System: s.name}
			s.read(env, &job)
			job.checkName()
			return job
		}
	}
	return Job{Unknown: "the environment is that of no CI system that is known"}
}

func isTrue(variable string) func(environment) bool {
	return func(env environment) bool { return strings.EqualFold(env(variable), "true") }
}

// login is what any forge takes for a name, and GitHub's for machines.
var login = regexp.MustCompile(`^~?[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(\[bot\])?$`)

// machines are the names of accounts that no person logs in to. GitLab makes
// them for access tokens and service accounts.
var machines = regexp.MustCompile(`(?i)(\[bot\]$|^(project|group)_\d+_bot|^service_account_|^(ghost|web-flow|github-actions|dependabot|renovate|renovate-bot|gitea-actions|forgejo-actions|alert-bot|support-bot)$)`)

// checkName refuses what is the name of no person.
func (j *Job) checkName() {
	switch {
	case j.Unknown != "":
	case j.Name == "":
		j.Unknown = "the environment has no name"
	case !login.MatchString(j.Name):
		j.Unknown = "the environment has something else than a login for a name"
	case machines.MatchString(j.Name):
		j.Unknown = fmt.Sprintf("%s is not a person", j.Name)
	}
}

// Who returns whom --actor lets in. forge, where it is not "", overrules what
// the environment says; it is needed where that says nothing. anyone takes the name even if it could be that of a stranger. The error is a
// sentence on why nobody is let in by this.
func (j Job) Who(forge forgekeys.Forge, anyone bool) (forgekeys.Forge, string, error) {
	if j.System == "" {
		return "", "", fmt.Errorf("cannot tell who triggered the job: %s; name somebody with --github-user or the like", j.Unknown)
	}
	if j.Stranger != "" && !anyone {
		return "", "", fmt.Errorf("nobody is let in for having triggered this job: %s says that %s; "+
			"name who may log in, or say --actor-anyone if whoever it is may", j.System, j.Stranger)
	}
	if j.Unknown != "" {
		return "", "", fmt.Errorf("cannot tell who triggered the job: %s: %s; name somebody with --github-user or the like", j.System, j.Unknown)
	}
	if forge == "" {
		forge = j.Forge
	}
	if forge == "" {
		return "", "", fmt.Errorf("cannot tell on which forge %s has an account: %s does not say; give --actor-forge", j.Name, j.System)
	}
	return forge, j.Name, nil
}

// ForgeOf takes the scheme and host of a repository's address, which may be
// that of git over ssh, and the kind of forge where the host is a known one.
func ForgeOf(address string) (forge forgekeys.Forge, base string) {
	host, scheme := "", "https"
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		host = u.Hostname()
		if u.Scheme == "https" || u.Scheme == "http" { // the port is that of its pages
			host, scheme = u.Host, u.Scheme
		}
	} else if at, _, ok := strings.Cut(address, ":"); ok { // git@host:path
		host = at[strings.LastIndex(at, "@")+1:]
	}
	switch host = strings.ToLower(host); host {
	case "":
		return "", ""
	case "github.com":
		forge = forgekeys.GitHub
	case "gitlab.com":
		forge = forgekeys.GitLab
	case "codeberg.org", "gitea.com":
		forge = forgekeys.Gitea
	case "git.sr.ht":
		return forgekeys.Sourcehut, forgekeys.Sourcehut.Public()
	}
	return forge, scheme + "://" + host
}
