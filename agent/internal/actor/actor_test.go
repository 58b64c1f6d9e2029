package actor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/agent/internal/forgekeys"
)

// vars is an environment, one NAME=VALUE a word.
func vars(text string) map[string]string {
	env := map[string]string{}
	for _, entry := range strings.Fields(text) {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env
}

// detect reads an environment; event, if not "", is the event's file.
func detect(t *testing.T, env map[string]string, event string) Job {
	t.Helper()
	if event != "" {
		file := filepath.Join(t.TempDir(), "event.json")
		if err := os.WriteFile(file, []byte(event), 0o600); err != nil {
			t.Fatal(err)
		}
		env["GITHUB_EVENT_PATH"] = file
	}
	return Detect(func(name string) string { return env[name] })
}

const (
	github  = "GITHUB_ACTIONS=true GITHUB_SERVER_URL=https://github.com GITHUB_ACTOR=alice GITHUB_TRIGGERING_ACTOR=alice "
	gitea   = "GITHUB_ACTIONS=true GITEA_ACTIONS=true GITHUB_SERVER_URL=https://git.example.com GITHUB_ACTOR=alice "
	forgejo = gitea + "FORGEJO_ACTIONS=true "
	gitlab  = "GITLAB_CI=true CI_SERVER_URL=https://gitlab.example.com GITLAB_USER_LOGIN=alice CI_PROJECT_ID=1 "
	circle  = "CIRCLECI=true CIRCLE_USERNAME=alice "
	azure   = "TF_BUILD=True BUILD_REQUESTEDFOR=Alice BUILD_REQUESTEDFOREMAIL=alice@example.com "
	pecker  = "CI=woodpecker CI_SYSTEM_NAME=woodpecker CI_PIPELINE_AUTHOR=alice CI_FORGE_URL=https://git.example.com "
	drone   = "DRONE=true CI=true DRONE_REPO_LINK=https://github.com/acme/app DRONE_COMMIT_AUTHOR=carol "
	jenkins = "JENKINS_URL=https://ci.example.com/ BUILD_NUMBER=7 "

	inside = `"base":{"repo":{"full_name":"acme/app","private":false}},"head":{"repo":{"full_name":"acme/app"}}`
	fork   = `"base":{"repo":{"full_name":"acme/app","private":false}},"head":{"repo":{"full_name":"mallory/app","fork":true}}`
)

func TestSystems(t *testing.T) {
	for _, test := range []struct {
		name, env, event string
		system           string
		forge            forgekeys.Forge
		address, who     string
		stranger         string // part of it; "" is none
		unknown          string
		public           bool
	}{
		{name: "none", unknown: "no CI system"},
		{name: "CI alone", env: "CI=true GITHUB_ACTOR=alice", unknown: "no CI system"},

		{"GitHub push", github + "GITHUB_EVENT_NAME=push", `{"repository":{"private":true}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"GitHub push, public", github + "GITHUB_EVENT_NAME=push", `{"repository":{"private":false,"visibility":"public"}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", true},
		{"GitHub push, older server", github + "GITHUB_EVENT_NAME=push", `{"repository":{"private":false}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", true},
		{"GitHub, internal", github + "GITHUB_EVENT_NAME=push", `{"repository":{"private":true,"visibility":"internal"}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"GitHub, by variable", github + "GITHUB_EVENT_NAME=push GITHUB_REPOSITORY_VISIBILITY=public", "",
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", true},
		{"GitHub, no event file", github + "GITHUB_EVENT_NAME=workflow_dispatch", "",
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"GitHub, no event at all", github, "",
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "no event is named", "", false},
		{"GitHub Enterprise", "GITHUB_ACTIONS=true GITHUB_SERVER_URL=https://ghe.example.com GITHUB_ACTOR=alice GITHUB_EVENT_NAME=schedule", "{}",
			"GitHub Actions", forgekeys.GitHub, "https://ghe.example.com", "alice", "", "", false},
		{"GitHub, run again", github + "GITHUB_EVENT_NAME=push GITHUB_TRIGGERING_ACTOR=bob", "{}",
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "bob", "", "", false},
		{"GitHub, bot's run again", github + "GITHUB_EVENT_NAME=push GITHUB_ACTOR=dependabot[bot] GITHUB_TRIGGERING_ACTOR=bob", "{}",
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "bob", "", "", false},
		{"GitHub, bot", github + "GITHUB_EVENT_NAME=push GITHUB_ACTOR=dependabot[bot] GITHUB_TRIGGERING_ACTOR=dependabot[bot]", "{}",
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "dependabot[bot]", "", "dependabot[bot] is not a person", false},
		{"GitHub, no name", "GITHUB_ACTIONS=true GITHUB_EVENT_NAME=push", "{}",
			"GitHub Actions", forgekeys.GitHub, "", "", "", "the environment has no name", false},
		{"GitHub, odd name", "GITHUB_ACTIONS=true GITHUB_EVENT_NAME=push GITHUB_ACTOR=../../evil", "{}",
			"GitHub Actions", forgekeys.GitHub, "", "../../evil", "", "something else than a login", false},
		{"GitHub comment", github + "GITHUB_EVENT_NAME=issue_comment", `{"repository":{"visibility":"public"}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", `"issue_comment" can be caused by anybody`, "", true},
		{"GitHub, event of the future", github + "GITHUB_EVENT_NAME=telepathy", "{}",
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "can be caused by anybody", "", false},
		{"GitHub fork", github + "GITHUB_EVENT_NAME=pull_request", `{"pull_request":{` + fork + `}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "the pull request is from a fork", "", false},
		{"GitHub fork, target", github + "GITHUB_EVENT_NAME=pull_request_target", `{"action":"synchronize","pull_request":{"author_association":"OWNER",` + fork + `}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "the pull request is from a fork", "", false},
		{"GitHub fork, run again", github + "GITHUB_EVENT_NAME=pull_request GITHUB_TRIGGERING_ACTOR=bob", `{"pull_request":{` + fork + `}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "bob", "the pull request is from a fork", "", false},
		{"GitHub fork, deleted", github + "GITHUB_EVENT_NAME=pull_request", `{"pull_request":{"base":{"repo":{"full_name":"acme/app"}},"head":{"repo":null}}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "the pull request is from a fork", "", false},
		{"GitHub pull request, no file", github + "GITHUB_EVENT_NAME=pull_request", "",
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "no more is known: GITHUB_EVENT_PATH is not set", "", false},
		{"GitHub pull request, broken", github + "GITHUB_EVENT_NAME=pull_request", "{",
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "no more is known", "", false},
		{"GitHub pull request, empty", github + "GITHUB_EVENT_NAME=pull_request", "{}",
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "does not tell where it came from", "", false},
		{"GitHub branch, by a member", github + "GITHUB_EVENT_NAME=pull_request", `{"action":"opened","pull_request":{"author_association":"MEMBER",` + inside + `}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"GitHub branch, by anybody", github + "GITHUB_EVENT_NAME=pull_request", `{"action":"opened","sender":{"login":"alice"},"pull_request":{"user":{"login":"alice"},"author_association":"CONTRIBUTOR",` + inside + `}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "author need not be one who may change", "", false},
		{"GitHub branch, pushed to", github + "GITHUB_EVENT_NAME=pull_request", `{"action":"synchronize","pull_request":{"author_association":"NONE",` + inside + `}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"GitHub branch, labelled", github + "GITHUB_EVENT_NAME=pull_request", `{"action":"labeled","sender":{"login":"alice"},"pull_request":{"user":{"login":"mallory"},"author_association":"NONE",` + inside + `}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"GitHub branch, private", github + "GITHUB_EVENT_NAME=pull_request", `{"action":"opened","pull_request":{"author_association":"NONE","base":{"repo":{"full_name":"a/b","private":true}},"head":{"repo":{"full_name":"a/b"}}}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"GitHub after a push", github + "GITHUB_EVENT_NAME=workflow_run", `{"repository":{"full_name":"a/b"},"workflow_run":{"event":"push","head_repository":{"full_name":"a/b"}}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"GitHub after a fork", github + "GITHUB_EVENT_NAME=workflow_run", `{"repository":{"full_name":"a/b"},"workflow_run":{"event":"pull_request","head_repository":{"full_name":"m/b"}}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "the run before this one was of a fork", "", false},
		{"GitHub after a comment", github + "GITHUB_EVENT_NAME=workflow_run", `{"repository":{"full_name":"a/b"},"workflow_run":{"event":"issue_comment","head_repository":{"full_name":"a/b"}}}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", `began with the event "issue_comment"`, "", false},
		{"GitHub after nothing", github + "GITHUB_EVENT_NAME=workflow_run", `{}`,
			"GitHub Actions", forgekeys.GitHub, "https://github.com", "alice", "does not tell", "", false},

		{"Gitea push", gitea + "GITHUB_EVENT_NAME=push", `{"repository":{"private":false}}`,
			"Gitea Actions", forgekeys.Gitea, "https://git.example.com", "alice", "", "", true},
		{"Gitea, internal", gitea + "GITHUB_EVENT_NAME=push", `{"repository":{"private":false,"internal":true}}`,
			"Gitea Actions", forgekeys.Gitea, "https://git.example.com", "alice", "", "", false},
		{"Gitea fork", gitea + "GITHUB_EVENT_NAME=pull_request", `{"pull_request":{` + fork + `}}`,
			"Gitea Actions", forgekeys.Gitea, "https://git.example.com", "alice", "from a fork", "", false},
		{"Gitea branch, pushed to", gitea + "GITHUB_EVENT_NAME=pull_request", `{"action":"synchronized","pull_request":{` + inside + `}}`,
			"Gitea Actions", forgekeys.Gitea, "https://git.example.com", "alice", "", "", false},
		{"Gitea branch, opened", gitea + "GITHUB_EVENT_NAME=pull_request", `{"action":"opened","pull_request":{` + inside + `}}`,
			"Gitea Actions", forgekeys.Gitea, "https://git.example.com", "alice", "need not be one", "", false},
		{"Gitea does not know who runs again", gitea + "GITHUB_EVENT_NAME=issues GITHUB_TRIGGERING_ACTOR=bob", `{}`,
			"Gitea Actions", forgekeys.Gitea, "https://git.example.com", "alice", "caused by anybody", "", false},
		{"Forgejo push", forgejo + "GITHUB_EVENT_NAME=push", `{"repository":{"private":true}}`,
			"Forgejo Actions", forgekeys.Gitea, "https://git.example.com", "alice", "", "", false},
		{"Forgejo, its own names", forgejo + "GITHUB_EVENT_NAME=push FORGEJO_SERVER_URL=https://codeberg.org FORGEJO_ACTOR=bob", `{}`,
			"Forgejo Actions", forgekeys.Gitea, "https://codeberg.org", "bob", "", "", false},

		{"GitLab push", gitlab + "CI_PIPELINE_SOURCE=push CI_PROJECT_VISIBILITY=private", "",
			"GitLab CI", forgekeys.GitLab, "https://gitlab.example.com", "alice", "", "", false},
		{"GitLab, internal", gitlab + "CI_PIPELINE_SOURCE=web CI_PROJECT_VISIBILITY=internal", "",
			"GitLab CI", forgekeys.GitLab, "https://gitlab.example.com", "alice", "", "", false},
		{"GitLab, public", gitlab + "CI_PIPELINE_SOURCE=push CI_PROJECT_VISIBILITY=public", "",
			"GitLab CI", forgekeys.GitLab, "https://gitlab.example.com", "alice", "", "", true},
		{"GitLab branch", gitlab + "CI_PIPELINE_SOURCE=merge_request_event CI_MERGE_REQUEST_PROJECT_ID=1 CI_MERGE_REQUEST_SOURCE_PROJECT_ID=1", "",
			"GitLab CI", forgekeys.GitLab, "https://gitlab.example.com", "alice", "", "", false},
		{"GitLab fork, run by the parent", gitlab + "CI_PIPELINE_SOURCE=merge_request_event CI_MERGE_REQUEST_PROJECT_ID=1 CI_MERGE_REQUEST_SOURCE_PROJECT_ID=2", "",
			"GitLab CI", forgekeys.GitLab, "https://gitlab.example.com", "alice", "the merge request is from a fork", "", false},
		{"GitLab fork, run by the fork", gitlab + "CI_PROJECT_ID=2 CI_PIPELINE_SOURCE=merge_request_event CI_MERGE_REQUEST_PROJECT_ID=1 CI_MERGE_REQUEST_SOURCE_PROJECT_ID=2", "",
			"GitLab CI", forgekeys.GitLab, "https://gitlab.example.com", "alice", "the merge request is from a fork", "", false},
		{"GitLab merge request from nowhere", gitlab + "CI_PIPELINE_SOURCE=merge_request_event", "",
			"GitLab CI", forgekeys.GitLab, "https://gitlab.example.com", "alice", "does not tell where it came from", "", false},
		{"GitLab for GitHub's fork", gitlab + "CI_PIPELINE_SOURCE=external_pull_request_event CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY=m/b CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY=a/b", "",
			"GitLab CI", forgekeys.GitLab, "https://gitlab.example.com", "alice", "the pull request is from a fork", "", false},
		{"GitLab for GitHub's branch", gitlab + "CI_PIPELINE_SOURCE=external_pull_request_event CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY=a/b CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY=a/b", "",
			"GitLab CI", forgekeys.GitLab, "https://gitlab.example.com", "alice", "", "", false},
		{"GitLab project's token", gitlab + "CI_PIPELINE_SOURCE=api GITLAB_USER_LOGIN=project_17_bot_3fa9", "",
			"GitLab CI", forgekeys.GitLab, "https://gitlab.example.com", "project_17_bot_3fa9", "", "is not a person", false},

		{"CircleCI", circle + "CIRCLE_REPOSITORY_URL=git@github.com:acme/app.git", "",
			"CircleCI", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"CircleCI fork", circle + "CIRCLE_REPOSITORY_URL=https://github.com/acme/app CIRCLE_PR_USERNAME=mallory CIRCLE_PR_REPONAME=app CIRCLE_PR_NUMBER=3", "",
			"CircleCI", forgekeys.GitHub, "https://github.com", "alice", "from a fork", "", false},
		{"CircleCI, Bitbucket", circle + "CIRCLE_REPOSITORY_URL=git@bitbucket.org:acme/app.git", "",
			"CircleCI", "", "https://bitbucket.org", "alice", "", "Bitbucket", false},
		{"CircleCI, no name", "CIRCLECI=true CIRCLE_REPOSITORY_URL=https://gitlab.com/acme/app", "",
			"CircleCI", forgekeys.GitLab, "https://gitlab.com", "", "", "the environment has no name", false},

		{"Azure", azure, "", "Azure Pipelines", "", "", "", "", "no login", false},
		{"Azure fork", azure + "SYSTEM_PULLREQUEST_ISFORK=True", "", "Azure Pipelines", "", "", "", "from a fork", "no login", false},

		{"Woodpecker push", pecker + "CI_PIPELINE_EVENT=push CI_FORGE_TYPE=forgejo CI_REPO_PRIVATE=true", "",
			"Woodpecker", forgekeys.Gitea, "https://git.example.com", "alice", "", "", false},
		{"Woodpecker push, public", pecker + "CI_PIPELINE_EVENT=manual CI_FORGE_TYPE=gitea CI_REPO_PRIVATE=false", "",
			"Woodpecker", forgekeys.Gitea, "https://git.example.com", "alice", "", "", true},
		{"Woodpecker pull request", pecker + "CI_PIPELINE_EVENT=pull_request CI_FORGE_TYPE=github CI_REPO_PRIVATE=false", "",
			"Woodpecker", forgekeys.GitHub, "https://git.example.com", "alice", "not whether it is from a fork", "", true},
		{"Woodpecker pull request, private", pecker + "CI_PIPELINE_EVENT=pull_request_closed CI_FORGE_TYPE=gitlab CI_REPO_PRIVATE=true", "",
			"Woodpecker", forgekeys.GitLab, "https://git.example.com", "alice", "", "", false},
		{"Woodpecker, Bitbucket", pecker + "CI_PIPELINE_EVENT=push CI_FORGE_TYPE=bitbucket_dc", "",
			"Woodpecker", "", "https://git.example.com", "alice", "", "Bitbucket", false},

		{"Drone, a button", drone + "DRONE_BUILD_EVENT=custom DRONE_BUILD_TRIGGER=alice DRONE_REPO_VISIBILITY=internal", "",
			"Drone", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"Drone, a hook", drone + "DRONE_BUILD_EVENT=push DRONE_BUILD_TRIGGER=@hook DRONE_REPO_VISIBILITY=public", "",
			"Drone", forgekeys.GitHub, "https://github.com", "carol", "there is only the commit's author", "", true},
		{"Drone, a pull request again", drone + "DRONE_BUILD_EVENT=pull_request DRONE_BUILD_TRIGGER=alice DRONE_REPO_PRIVATE=false", "",
			"Drone", forgekeys.GitHub, "https://github.com", "alice", "not whether it is from a fork", "", true},
		{"Drone, a pull request, private", drone + "DRONE_BUILD_EVENT=pull_request DRONE_BUILD_TRIGGER=alice DRONE_REPO_PRIVATE=true", "",
			"Drone", forgekeys.GitHub, "https://github.com", "alice", "", "", false},
		{"Drone, another forge", drone + "DRONE_REPO_LINK=https://git.example.com:3000/a/b DRONE_BUILD_TRIGGER=alice", "",
			"Drone", "", "https://git.example.com:3000", "alice", "", "", false},

		{"Jenkins, a button", jenkins + "BUILD_USER_ID=alice", "", "Jenkins", "", "", "alice", "", "", false},
		{"Jenkins, a timer", jenkins + "BUILD_USER_ID=timer", "", "Jenkins", "", "", "", "", "nobody is named", false},
		{"Jenkins, no plugin", jenkins, "", "Jenkins", "", "", "", "", "build-user-vars", false},
		{"Jenkins, a change", jenkins + "BUILD_USER_ID=branchIndexing CHANGE_ID=3 CHANGE_AUTHOR=carol", "",
			"Jenkins", "", "", "carol", "the author of a change can be anybody", "", false},
		{"Jenkins, a fork", jenkins + "BUILD_USER_ID=alice CHANGE_ID=3 CHANGE_FORK=mallory", "",
			"Jenkins", "", "", "alice", "from a fork", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			job := detect(t, vars(test.env), test.event)
			if job.System != test.system || job.Forge != test.forge || job.Address != test.address || job.Name != test.who {
				t.Errorf("%+v", job)
			}
			for _, part := range [][2]string{{job.Stranger, test.stranger}, {job.Unknown, test.unknown}} {
				if !strings.Contains(part[0], part[1]) || (part[0] == "") != (part[1] == "") {
					t.Errorf("%q does not say %q", part[0], part[1])
				}
			}
			if (job.Public != "") != test.public {
				t.Errorf("public: %q", job.Public)
			}

			forge, who, err := job.Who("", false)
			want := test.stranger == "" && test.unknown == "" && test.forge != ""
			if (err == nil) != want || err == nil && (forge != test.forge || who != test.who) || err != nil && who != "" {
				t.Errorf("%s %s %v, want success %v", forge, who, err, want)
			}
			forge, who, err = job.Who(forgekeys.Sourcehut, true)
			if want = test.unknown == ""; (err == nil) != want || err == nil && (forge != forgekeys.Sourcehut || who != test.who) {
				t.Errorf("anyone: %s %s %v, want success %v", forge, who, err, want)
			}
		})
	}
}

// TestUnsaid: a system that normally tells whether its log is public, and does
// not, is no system of which nothing else is expected.
func TestUnsaid(t *testing.T) {
	const push = github + "GITHUB_EVENT_NAME=push "
	for _, test := range []struct {
		name, env, event string
		unsaid           string // part of it; "" is none
	}{
		{"none", "", "", ""},
		{"GitHub, variables alone", push, "", "GITHUB_EVENT_PATH is not set"},
		{"GitHub, the file is elsewhere", push + "GITHUB_EVENT_PATH=/nowhere/event.json", "", "cannot read the event"},
		{"GitHub, no event", push, `{`, "not what GitHub would write"},
		{"GitHub, an empty event", push, `{}`, "the event does not say"},
		{"GitHub, a schedule", push, `{"schedule":"0 0 * * *"}`, "the event does not say"},
		{"GitHub, a repository without", push, `{"repository":{"full_name":"a/b"}}`, "the event does not say"},
		{"GitHub, private", push, `{"repository":{"private":true}}`, ""},
		{"GitHub, public", push, `{"repository":{"private":false}}`, ""},
		{"GitHub, internal", push, `{"repository":{"visibility":"internal"}}`, ""},
		{"GitHub, private by variable", push + "GITHUB_REPOSITORY_VISIBILITY=private", "", ""},
		{"GitHub, public by variable", push + "GITHUB_REPOSITORY_VISIBILITY=public", "", ""},
		{"GitHub, nonsense by variable", push + "GITHUB_REPOSITORY_VISIBILITY=x", "", "not set"},
		{"Gitea, variables alone", gitea + "GITHUB_EVENT_NAME=push", "", "not set"},
		{"Forgejo, variables alone", forgejo + "GITHUB_EVENT_NAME=push", "", "not set"},
		{"GitLab, variables left out", gitlab, "", "CI_PROJECT_VISIBILITY does not say"},
		{"GitLab, internal", gitlab + "CI_PROJECT_VISIBILITY=internal", "", ""},
		{"GitLab, public", gitlab + "CI_PROJECT_VISIBILITY=public", "", ""},
		{"Woodpecker, variables left out", pecker, "", "CI_REPO_PRIVATE does not say"},
		{"Woodpecker, private", pecker + "CI_REPO_PRIVATE=true", "", ""},
		{"Drone, variables left out", drone, "", "DRONE_REPO_VISIBILITY does not say"},
		{"Drone, an older one", drone + "DRONE_REPO_PRIVATE=true", "", ""},
		{"Drone, internal", drone + "DRONE_REPO_VISIBILITY=internal", "", ""},
		{"CircleCI never tells", circle, "", ""},
		{"Azure never tells", azure, "", ""},
		{"Jenkins never tells", jenkins, "", ""},
	} {
		job := detect(t, vars(test.env), test.event)
		if !strings.Contains(job.Unsaid, test.unsaid) || (job.Unsaid == "") != (test.unsaid == "") || job.Unsaid != "" && job.Public != "" {
			t.Errorf("%s: %q, public %q", test.name, job.Unsaid, job.Public)
		}
	}
}

func TestServer(t *testing.T) {
	for address, want := range map[string]string{
		"":                                 " ",
		"git@github.com:a/b.git":           "github https://github.com",
		"https://GitHub.com/a/b":           "github https://github.com",
		"ssh://git@gitlab.com:22/a/b":      "gitlab https://gitlab.com",
		"https://codeberg.org/a/b":         "gitea https://codeberg.org",
		"https://git.sr.ht/~a/b":           "sourcehut https://meta.sr.ht",
		"http://gitea:3000/a/b":            " http://gitea:3000",
		"https://git.example.com:8443/a/b": " https://git.example.com:8443",
		"https://github.com.evil.example/": " https://github.com.evil.example",
	} {
		forge, base := ForgeOf(address)
		if got := string(forge) + " " + base; got != want {
			t.Errorf("%s: %q", address, got)
		}
	}
}

func TestEventFile(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxEvent+1); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"": "not set", dir: "", filepath.Join(dir, "nowhere"): "cannot read", large: "more than 32 MiB",
	} {
		if _, err := readEvent(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzEvent shows that no event makes a pull request one that comes from
// inside unless it says so of both ends.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"pull_request":{`+inside+`}}`), "pull_request", false)
	f.Add([]byte(`{"pull_request":{`+fork+`}}`), "pull_request_target", true)
	f.Add([]byte(`{"repository":{"full_name":"a/b","private":null},"workflow_run":{"event":"push","head_repository":{"full_name":"a/b"}}}`), "workflow_run", false)
	f.Fuzz(func(t *testing.T, text []byte, name string, again bool) {
		e, err := parseEvent(text)
		if err != nil {
			return
		}
		why := e.stranger(name, again)
		e.Repository.public()
		if why != "" || name != "pull_request" {
			return
		}
		pr := e.PullRequest
		if pr == nil || pr.Base.Repo == nil || pr.Head.Repo == nil || pr.Base.Repo.FullName == "" || pr.Base.Repo.FullName != pr.Head.Repo.FullName {
			t.Errorf("%s is taken for a pull request from inside", text)
		}
	})
}

// FuzzDetect shows that whatever the variables hold, a name that is accepted
// is one login, and nothing that could be another page of a forge.
func FuzzDetect(f *testing.F) {
	f.Add("GITHUB_ACTIONS", "alice", "push", "https://github.com")
	f.Add("GITLAB_CI", "a/b", "web", "x")
	f.Add("DRONE", "@hook", "push", "git@h:p")
	f.Fuzz(func(t *testing.T, system, name, event, address string) {
		env := map[string]string{
			system: "true", "GITHUB_ACTOR": name, "GITLAB_USER_LOGIN": name, "CIRCLE_USERNAME": name, "CI_PIPELINE_AUTHOR": name,
			"DRONE_BUILD_TRIGGER": name, "DRONE_COMMIT_AUTHOR": name, "BUILD_USER_ID": name, "GITHUB_EVENT_NAME": event,
			"CI_PIPELINE_SOURCE": event, "DRONE_BUILD_EVENT": event, "GITHUB_SERVER_URL": address, "CIRCLE_REPOSITORY_URL": address, "DRONE_REPO_LINK": address,
		}
		_, who, err := Detect(func(name string) string { return env[name] }).Who(forgekeys.GitHub, true)
		if err == nil && (who == "" || who == "." || strings.ContainsAny(who, "/?#% \n") || strings.HasPrefix(who, ".")) {
			t.Errorf("%q is taken for a login", who)
		}
	})
}
