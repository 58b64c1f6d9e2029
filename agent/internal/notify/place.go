package notify

import (
	"cmp"
	"encoding/json"
	"net/url"
	"strings"

	"example.com/converge/pkg/apicall"
	"example.com/converge/pkg/files"
	"example.com/converge/pkg/forge"
)

// Job is what runs, as far as the environment says.
type Job struct {
	// System is the CI system, Name the job in words; both may be "".
	System string `json:"system"`
	Name   string `json:"name"`
	// URL is the job's page; "" or http or https.
	URL string `json:"url"`
	// Repository is its path on its forge, and Commit a full object id. Either
	// may be "".
	Repository string `json:"repository"`
	Commit     string `json:"commit"`
	// Pull is the number of the pull or merge request; "" where there is none.
	Pull string `json:"pull_request,omitempty"`
	// RepositoryURL is where it was cloned from, for systems that name no forge.
	RepositoryURL string `json:"-"`
	// Pipeline is the number of GitLab's pipeline.
	Pipeline string `json:"-"`
}

// maxEvent is the largest event file that is read, in bytes.
const maxEvent = 4 << 20

// Detect reads what the job is. system is the CI system's name as package actor
// knows it, "" for others; getenv is os.Getenv or a stand-in.
//
// The variables are those that each system documents; package actor has the
// addresses of the documents. Buildkite's are at
// https://buildkite.com/docs/pipelines/configure/environment-variables, Nomad's at
// https://developer.hashicorp.com/nomad/docs/runtime/environment.
func Detect(system string, getenv func(string) string) Job {
	j := Job{System: system}
	var words []string
	switch system {
	case "GitHub Actions", "Gitea Actions", "Forgejo Actions":
		words = j.actions(getenv)
	case "GitLab CI":
		j.Repository, j.URL, j.Pipeline = getenv("CI_PROJECT_PATH"), getenv("CI_JOB_URL"), getenv("CI_PIPELINE_ID")
		j.Commit = cmp.Or(getenv("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA"), getenv("CI_COMMIT_SHA"))
		j.Pull = getenv("CI_MERGE_REQUEST_IID")
		words = []string{j.Repository, getenv("CI_JOB_NAME"), number(getenv("CI_PIPELINE_ID"))}
	case "CircleCI":
		j.Repository, j.Commit = join(getenv("CIRCLE_PROJECT_USERNAME"), getenv("CIRCLE_PROJECT_REPONAME")), getenv("CIRCLE_SHA1")
		j.URL = getenv("CIRCLE_BUILD_URL")
		j.Pull = lastPart(getenv("CIRCLE_PULL_REQUEST"))
		words = []string{j.Repository, getenv("CIRCLE_JOB"), number(getenv("CIRCLE_BUILD_NUM"))}
	case "Woodpecker":
		j.Repository, j.Commit, j.URL = getenv("CI_REPO"), getenv("CI_COMMIT_SHA"), getenv("CI_PIPELINE_URL")
		j.Pull = getenv("CI_COMMIT_PULL_REQUEST")
		words = []string{j.Repository, getenv("CI_STEP_NAME"), number(getenv("CI_PIPELINE_NUMBER"))}
	case "Drone":
		j.Repository, j.Commit, j.URL = getenv("DRONE_REPO"), getenv("DRONE_COMMIT_SHA"), getenv("DRONE_BUILD_LINK")
		j.Pull = getenv("DRONE_PULL_REQUEST")
		words = []string{j.Repository, getenv("DRONE_STEP_NAME"), number(getenv("DRONE_BUILD_NUMBER"))}
	case "Jenkins":
		j.RepositoryURL, j.Commit, j.URL, j.Pull = getenv("GIT_URL"), getenv("GIT_COMMIT"), getenv("BUILD_URL"), getenv("CHANGE_ID")
		words = []string{getenv("JOB_NAME"), number(getenv("BUILD_NUMBER"))}
	case "Azure Pipelines":
		j.RepositoryURL, j.Commit = getenv("BUILD_REPOSITORY_URI"), getenv("BUILD_SOURCEVERSION")
		j.Pull = getenv("SYSTEM_PULLREQUEST_PULLREQUESTNUMBER")
		if base, id := getenv("SYSTEM_COLLECTIONURI"), getenv("BUILD_BUILDID"); base != "" && id != "" {
			j.URL = strings.TrimRight(base, "/") + "/" + url.PathEscape(getenv("SYSTEM_TEAMPROJECT")) + "/_build/results?buildId=" + url.QueryEscape(id)
		}
		words = []string{getenv("BUILD_DEFINITIONNAME"), getenv("SYSTEM_JOBDISPLAYNAME"), number(getenv("BUILD_BUILDNUMBER"))}
	default:
		words = j.others(getenv)
	}
	if j.Repository == "" {
		j.Repository = repositoryPath(j.RepositoryURL)
	}
	j.Name = apicall.Clip(strings.Join(strings.Fields(strings.Join(words, " ")), " "), maxName)
	j.tidy()
	return j
}

// actions reads GitHub's variables, which Gitea and Forgejo have too.
func (j *Job) actions(getenv func(string) string) (words []string) {
	j.Repository, j.Commit = getenv("GITHUB_REPOSITORY"), getenv("GITHUB_SHA")
	server, run := strings.TrimRight(getenv("GITHUB_SERVER_URL"), "/"), getenv("GITHUB_RUN_ID")
	if j.System != "GitHub Actions" {
		run = getenv("GITHUB_RUN_NUMBER") // theirs is in their addresses
	}
	if server != "" && j.Repository != "" && run != "" {
		j.URL = server + "/" + j.Repository + "/actions/runs/" + run
	}
	if rest, ok := strings.CutPrefix(getenv("GITHUB_REF"), "refs/pull/"); ok {
		j.Pull, _, _ = strings.Cut(rest, "/")
		// GITHUB_SHA is the trial merge, where nobody looks for a status.
		if head := readHead(getenv("GITHUB_EVENT_PATH")); head != "" {
			j.Commit = head
		}
	}
	return []string{j.Repository, getenv("GITHUB_JOB"), number(getenv("GITHUB_RUN_NUMBER"))}
}

// others are the systems on which nobody triggers a job by a forge's name.
func (j *Job) others(getenv func(string) string) (words []string) {
	switch {
	case getenv("BUILDKITE") == "true":
		j.System = "Buildkite"
		j.RepositoryURL, j.Commit = getenv("BUILDKITE_REPO"), getenv("BUILDKITE_COMMIT")
		j.Pull = getenv("BUILDKITE_PULL_REQUEST") // "false" for none
		if j.URL = getenv("BUILDKITE_BUILD_URL"); j.URL != "" {
			j.URL += "#" + url.PathEscape(getenv("BUILDKITE_JOB_ID"))
		}
		return []string{getenv("BUILDKITE_PIPELINE_SLUG"), getenv("BUILDKITE_LABEL"), number(getenv("BUILDKITE_BUILD_NUMBER"))}
	case getenv("NOMAD_ALLOC_ID") != "":
		j.System = "Nomad"
		return []string{getenv("NOMAD_JOB_NAME"), getenv("NOMAD_TASK_NAME"), getenv("NOMAD_SHORT_ALLOC_ID")}
	}
	return nil
}

// tidy drops what is not of the form that it should have: it becomes part of
// paths, and of what people read.
func (j *Job) tidy() {
	if !forge.IsPath(j.Repository) {
		j.Repository = ""
	}
	if !forge.IsCommit(j.Commit) {
		j.Commit = ""
	}
	if !forge.IsNumber(j.Pull) {
		j.Pull = ""
	}
	if !forge.IsNumber(j.Pipeline) {
		j.Pipeline = ""
	}
	u, err := url.Parse(j.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || len(j.URL) > 1000 {
		j.URL = ""
		return
	}
	// Parsed and written anew it has no character with a meaning in a message.
	j.URL = strings.NewReplacer("|", "%7C", "<", "%3C", ">", "%3E").Replace(u.String())
}

// readHead returns the head commit of an event's pull request; "" if there is
// none to be had.
func readHead(file string) string {
	if file == "" {
		return ""
	}
	text, err := files.ReadRegular(file, maxEvent)
	if err != nil {
		return ""
	}
	return decodeHead(text)
}

func decodeHead(text []byte) string {
	var event struct {
		PullRequest struct {
			Head struct {
				SHA string `json:"sha"`
			} `json:"head"`
		} `json:"pull_request"`
	}
	if json.Unmarshal(text, &event) != nil || !forge.IsCommit(event.PullRequest.Head.SHA) {
		return ""
	}
	return event.PullRequest.Head.SHA
}

// repositoryPath takes OWNER/NAME from an address that git clones from.
func repositoryPath(address string) string {
	p := ""
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		p = u.Path
	} else if _, rest, ok := strings.Cut(address, ":"); ok { // git@host:path
		p = rest
	}
	return strings.TrimSuffix(strings.Trim(p, "/"), ".git")
}

func lastPart(address string) string { return address[strings.LastIndexByte(address, '/')+1:] }

func join(owner, name string) string {
	if owner == "" || name == "" {
		return ""
	}
	return owner + "/" + name
}

func number(text string) string {
	if text == "" {
		return ""
	}
	return "#" + text
}
