package notify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/pkg/forge"
)

// TestDetect has the variables of each system as its documents show them.
func TestDetect(t *testing.T) {
	event := filepath.Join(t.TempDir(), "event.json")
	head := strings.Repeat("a", 40)
	if err := os.WriteFile(event, []byte(`{"pull_request":{"head":{"sha":"`+head+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	actions := map[string]string{
		"GITHUB_REPOSITORY": "acme/app", "GITHUB_SHA": sha, "GITHUB_SERVER_URL": "https://git.example", "GITHUB_RUN_ID": "99",
		"GITHUB_RUN_NUMBER": "7", "GITHUB_JOB": "test", "GITHUB_REF": "refs/pull/12/merge", "GITHUB_EVENT_PATH": event,
	}
	for _, test := range []struct {
		system string
		env    map[string]string
		want   Job
	}{
		{"GitHub Actions", actions, Job{Name: "acme/app test #7", URL: "https://git.example/acme/app/actions/runs/99", Repository: "acme/app", Commit: head, Pull: "12"}},
		{"Forgejo Actions", actions, Job{Name: "acme/app test #7", URL: "https://git.example/acme/app/actions/runs/7", Repository: "acme/app", Commit: head, Pull: "12"}},
		{"GitLab CI", map[string]string{
			"CI_PROJECT_PATH": "acme/ops/app", "CI_COMMIT_SHA": sha, "CI_JOB_URL": "https://gitlab.example/acme/ops/app/-/jobs/5", "CI_JOB_NAME": "test: [1, 2]",
			"CI_PIPELINE_ID": "7", "CI_MERGE_REQUEST_IID": "3", "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA": head,
		}, Job{Name: "acme/ops/app test: [1, 2] #7", URL: "https://gitlab.example/acme/ops/app/-/jobs/5", Repository: "acme/ops/app", Commit: head, Pull: "3", Pipeline: "7"}},
		{"CircleCI", map[string]string{
			"CIRCLE_PROJECT_USERNAME": "acme", "CIRCLE_PROJECT_REPONAME": "app", "CIRCLE_SHA1": sha, "CIRCLE_JOB": "build", "CIRCLE_BUILD_NUM": "7",
			"CIRCLE_BUILD_URL": "https://circleci.com/gh/acme/app/7", "CIRCLE_PULL_REQUEST": "https://github.com/acme/app/pull/12",
		}, Job{Name: "acme/app build #7", URL: "https://circleci.com/gh/acme/app/7", Repository: "acme/app", Commit: sha, Pull: "12"}},
		{"Woodpecker", map[string]string{
			"CI_REPO": "acme/app", "CI_COMMIT_SHA": sha, "CI_PIPELINE_URL": "https://ci.example/repos/1/pipeline/7", "CI_STEP_NAME": "test",
			"CI_PIPELINE_NUMBER": "7", "CI_COMMIT_PULL_REQUEST": "12",
		}, Job{Name: "acme/app test #7", URL: "https://ci.example/repos/1/pipeline/7", Repository: "acme/app", Commit: sha, Pull: "12"}},
		{"Drone", map[string]string{
			"DRONE_REPO": "acme/app", "DRONE_COMMIT_SHA": sha, "DRONE_BUILD_LINK": "https://drone.example/acme/app/7", "DRONE_STEP_NAME": "test", "DRONE_BUILD_NUMBER": "7",
		}, Job{Name: "acme/app test #7", URL: "https://drone.example/acme/app/7", Repository: "acme/app", Commit: sha}},
		{"Jenkins", map[string]string{
			"JOB_NAME": "acme/app/main", "BUILD_NUMBER": "7", "BUILD_URL": "http://jenkins.example/job/app/7/", "GIT_URL": "git@github.com:acme/app.git", "GIT_COMMIT": sha,
		}, Job{Name: "acme/app/main #7", URL: "http://jenkins.example/job/app/7/", Repository: "acme/app", Commit: sha, RepositoryURL: "git@github.com:acme/app.git"}},
		{"Azure Pipelines", map[string]string{
			"BUILD_REPOSITORY_URI": "https://github.com/acme/app", "BUILD_SOURCEVERSION": sha, "SYSTEM_COLLECTIONURI": "https://dev.azure.com/acme/",
			"SYSTEM_TEAMPROJECT": "My Project", "BUILD_BUILDID": "7", "BUILD_DEFINITIONNAME": "app", "SYSTEM_JOBDISPLAYNAME": "Job", "BUILD_BUILDNUMBER": "20260301.1",
		}, Job{Name: "app Job #20260301.1", URL: "https://dev.azure.com/acme/My%20Project/_build/results?buildId=7", Repository: "acme/app", Commit: sha, RepositoryURL: "https://github.com/acme/app"}},
		{"", map[string]string{
			"BUILDKITE": "true", "BUILDKITE_REPO": "git@github.com:acme/app.git", "BUILDKITE_COMMIT": "HEAD", "BUILDKITE_PULL_REQUEST": "false",
			"BUILDKITE_BUILD_URL": "https://buildkite.com/acme/app/builds/7", "BUILDKITE_JOB_ID": "0-1", "BUILDKITE_PIPELINE_SLUG": "app",
			"BUILDKITE_LABEL": "tests", "BUILDKITE_BUILD_NUMBER": "7",
		}, Job{System: "Buildkite", Name: "app tests #7", URL: "https://buildkite.com/acme/app/builds/7#0-1", Repository: "acme/app", RepositoryURL: "git@github.com:acme/app.git"}},
		{"", map[string]string{"NOMAD_ALLOC_ID": "x", "NOMAD_JOB_NAME": "build", "NOMAD_TASK_NAME": "make", "NOMAD_SHORT_ALLOC_ID": "1234abcd"},
			Job{System: "Nomad", Name: "build make 1234abcd"}},
		{"", nil, Job{}},
		{"Drone", map[string]string{ // of a form that it should not have
			"DRONE_REPO": "acme/../app", "DRONE_COMMIT_SHA": "main", "DRONE_PULL_REQUEST": "1/2", "DRONE_BUILD_LINK": "javascript:alert(1)", "DRONE_STEP_NAME": "a\x1b[2J\nb",
		}, Job{Name: "acme/../app a?[2J b"}},
		{"Drone", map[string]string{"DRONE_BUILD_LINK": "https://u:p@drone.example/"}, Job{}},
		{"Drone", map[string]string{"DRONE_BUILD_LINK": "https://drone.example/?a=<b>|c"}, Job{URL: "https://drone.example/?a=%3Cb%3E%7Cc"}},
	} {
		if test.want.System == "" {
			test.want.System = test.system
		}
		if got := Detect(test.system, func(name string) string { return test.env[name] }); got != test.want {
			t.Errorf("%s:\n got %+v\nwant %+v", test.system, got, test.want)
		}
	}
}

func TestHeadMissing(t *testing.T) {
	for _, file := range []string{"", filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if got := readHead(file); got != "" {
			t.Errorf("%q: %q", file, got)
		}
	}
}

func FuzzDecodeHead(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		if got := decodeHead(text); got != "" && !forge.IsCommit(got) {
			t.Errorf("%q", got)
		}
	})
}
