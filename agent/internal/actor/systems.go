package actor

import (
	"cmp"
	"fmt"
	"strings"

	"example.com/converge/agent/internal/forgekeys"
)

// readGitHub reads what GitHub Actions tells:
// https://docs.github.com/en/actions/reference/workflows-and-actions/variables
//
// The actor is who began this attempt; in a run that somebody else began once
// more GITHUB_ACTOR is still the first.
func readGitHub(env environment, job *Job) {
	job.Forge, job.Address = forgekeys.GitHub, env("GITHUB_SERVER_URL")
	job.Name = cmp.Or(env("GITHUB_TRIGGERING_ACTOR"), env("GITHUB_ACTOR"))
	readWorkflow(env, job)
}

// readGitea reads what the runners of Gitea and Forgejo tell: GitHub's names,
// and Forgejo's newer ones.
func readGitea(env environment, job *Job) {
	job.Forge = forgekeys.Gitea
	job.Address = cmp.Or(env("FORGEJO_SERVER_URL"), env("GITHUB_SERVER_URL"))
	job.Name = cmp.Or(env("FORGEJO_ACTOR"), env("GITHUB_ACTOR"))
	readWorkflow(env, job)
}

func readWorkflow(env environment, job *Job) {
	e, err := readEvent(env("GITHUB_EVENT_PATH"))
	if err != nil {
		e = &event{}
	}
	name := env("GITHUB_EVENT_NAME")
	triggering := env("GITHUB_TRIGGERING_ACTOR")
	again := job.Forge == forgekeys.GitHub && triggering != "" && triggering != env("GITHUB_ACTOR")
	job.Stranger = e.stranger(name, again)
	if err != nil && job.Stranger != "" {
		job.Stranger = fmt.Sprintf("the event is %q, and no more is known: %v", name, err)
	}
	if name == "" {
		job.Stranger = "no event is named (GITHUB_EVENT_NAME)"
	}
	switch visibility := env("GITHUB_REPOSITORY_VISIBILITY"); {
	case e.Repository.public() || visibility == "public":
		job.Public = "its repository is public"
	case e.Repository.closed() || visibility == "private" || visibility == "internal":
	case err != nil:
		job.Unsaid = fmt.Sprintf("whether its repository is public: %v", err)
	default: // as a schedule's may not
		job.Unsaid = "whether its repository is public: the event does not say"
	}
}

// readGitLab reads what GitLab tells:
// https://docs.gitlab.com/ci/variables/predefined_variables/
func readGitLab(env environment, job *Job) {
	job.Forge, job.Address = forgekeys.GitLab, env("CI_SERVER_URL")
	job.Name = env("GITLAB_USER_LOGIN")
	target := cmp.Or(env("CI_MERGE_REQUEST_PROJECT_ID"), env("CI_PROJECT_ID"))
	source := env("CI_MERGE_REQUEST_SOURCE_PROJECT_ID")
	switch kind := env("CI_PIPELINE_SOURCE"); {
	case source != "" && source != target:
		job.Stranger = "the merge request is from a fork"
	case kind == "merge_request_event" && source == "":
		job.Stranger = "the merge request does not tell where it came from"
	case kind == "external_pull_request_event" &&
		(env("CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY") == "" ||
			env("CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY") != env("CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY")):
		job.Stranger = "the pull request is from a fork"
	}
	job.tellVisibility(env("CI_PROJECT_VISIBILITY"), "project", "CI_PROJECT_VISIBILITY")
}

// readCircle reads what CircleCI tells:
// https://circleci.com/docs/reference/variables/
//
// Those of pull requests are set for forks only. It does not tell whether the
// project is public.
func readCircle(env environment, job *Job) {
	job.Name = env("CIRCLE_USERNAME")
	job.Forge, job.Address = ForgeOf(env("CIRCLE_REPOSITORY_URL"))
	if env("CIRCLE_PR_USERNAME") != "" || env("CIRCLE_PR_REPONAME") != "" || env("CIRCLE_PR_NUMBER") != "" {
		job.Stranger = "the pull request is from a fork"
	}
	if strings.Contains(env("CIRCLE_REPOSITORY_URL"), "bitbucket.org") {
		job.Unknown = "the name is one of Bitbucket, which shows nobody's keys"
	}
}

// readAzure reads what Azure Pipelines tells:
// https://learn.microsoft.com/azure/devops/pipelines/build/variables
//
// It has a display name and an address of who asked for the build
// (BUILD_REQUESTEDFOR, BUILD_REQUESTEDFOREMAIL) and no login anywhere.
func readAzure(env environment, job *Job) {
	if strings.EqualFold(env("SYSTEM_PULLREQUEST_ISFORK"), "true") {
		job.Stranger = "the pull request is from a fork"
	}
	job.Unknown = "it tells the name and the mail address of who asked for the build, and no login"
}

// visibilityOf is what a variable means that says whether something is private.
var visibilityOf = map[string]string{"true": "private", "false": "public"}

// tellVisibility notes whether everybody can read the log of a project or
// repository. What neither opens nor closes it leaves that unsaid; the variable
// is the one that should have told.
func (j *Job) tellVisibility(visibility, what, variable string) {
	switch visibility {
	case "public":
		j.Public = "its " + what + " is public"
	case "private", "internal":
	default:
		j.Unsaid = fmt.Sprintf("whether its %s is public: %s does not say", what, variable)
	}
}

func isWoodpecker(env environment) bool {
	return env("CI") == "woodpecker" || env("CI_SYSTEM_NAME") == "woodpecker"
}

// readWoodpecker reads what Woodpecker tells:
// https://woodpecker-ci.org/docs/usage/environment
//
// It does not tell whether a pull request is from a fork.
func readWoodpecker(env environment, job *Job) {
	job.Name, job.Address = env("CI_PIPELINE_AUTHOR"), env("CI_FORGE_URL")
	switch kind := env("CI_FORGE_TYPE"); kind {
	case "github":
		job.Forge = forgekeys.GitHub
	case "gitlab":
		job.Forge = forgekeys.GitLab
	case "gitea", "forgejo":
		job.Forge = forgekeys.Gitea
	case "bitbucket", "bitbucket_dc":
		job.Unknown = "the name is one of Bitbucket, which shows nobody's keys"
	}
	if strings.HasPrefix(env("CI_PIPELINE_EVENT"), "pull_request") && env("CI_REPO_PRIVATE") != "true" {
		job.Stranger = "the event is a pull request, and not whether it is from a fork"
	}
	job.tellVisibility(visibilityOf[env("CI_REPO_PRIVATE")], "repository", "CI_REPO_PRIVATE")
}

// readDrone reads what Drone tells:
// https://docs.drone.io/pipeline/environment/reference/
//
// Its trigger is a person only where somebody pressed the button; otherwise
// there is the commit's author, who may be somebody whose change another one
// has pushed.
func readDrone(env environment, job *Job) {
	job.Forge, job.Address = ForgeOf(env("DRONE_REPO_LINK"))
	private := env("DRONE_REPO_VISIBILITY") == "private" || env("DRONE_REPO_VISIBILITY") == "internal" || env("DRONE_REPO_PRIVATE") == "true"
	if trigger := env("DRONE_BUILD_TRIGGER"); trigger != "" && !strings.HasPrefix(trigger, "@") {
		job.Name = trigger
	} else {
		job.Name = env("DRONE_COMMIT_AUTHOR")
		job.Stranger = "it was started by an event, whose cause it does not name: there is only the commit's author"
	}
	if env("DRONE_BUILD_EVENT") == "pull_request" && !private {
		job.Stranger = cmp.Or(job.Stranger, "the event is a pull request, and not whether it is from a fork")
	}
	visibility := cmp.Or(env("DRONE_REPO_VISIBILITY"), visibilityOf[env("DRONE_REPO_PRIVATE")])
	job.tellVisibility(visibility, "repository", "DRONE_REPO_VISIBILITY")
}

func isJenkins(env environment) bool { return env("JENKINS_URL") != "" && env("BUILD_NUMBER") != "" }

// causes are what the build-user-vars plugin calls a build that nobody started.
var causes = map[string]bool{
	"timer": true, "scmChange": true, "branchIndexing": true, "remoteRequest": true, "genericWebhook": true,
	"upstream": true, "SYSTEM": true, "anonymous": true,
}

// readJenkins reads what the build-user-vars plugin tells (BUILD_USER_ID:
// https://plugins.jenkins.io/build-user-vars-plugin/), and in a multibranch
// project the author of a change. The first is a name in Jenkins, the second
// one on a forge that Jenkins does not name.
func readJenkins(env environment, job *Job) {
	id := env("BUILD_USER_ID")
	if id != "" && !causes[id] {
		job.Name = id
	} else if author := env("CHANGE_AUTHOR"); author != "" {
		job.Name = author
		job.Stranger = "nobody pressed the button, and the author of a change can be anybody"
	} else {
		job.Unknown = "nobody is named; the build-user-vars plugin sets BUILD_USER_ID where somebody pressed the button"
	}
	if env("CHANGE_FORK") != "" {
		job.Stranger = "the change is from a fork"
	}
}
