//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// containerSystems are the files of deploy/ci-container, which docs/container.md
// shows; TestContainerCI runs them with an engine, and by itself only their form
// is looked at here.
var containerSystems = map[string]ciSystem{
	"gitlab": {
		file: "gitlab-ci.yml", script: fromYAML("test", "script", 0), shell: []string{"bash", "-eo", "pipefail"}, wraps: true,
		env: withEnv(nil, "GITLAB_CI=true CI_PROJECT_PATH=acme/app CI_JOB_ID=7 CI_PIPELINE_SOURCE=push CI_PROJECT_ID=1 GITLAB_USER_LOGIN=octocat CI_SERVER_URL=FORGE"),
		id:  "acme/app/7",
	},
	"github": {
		file: "github-actions.yml", script: fromYAML("jobs", "test", "steps", 2, "run"), shell: []string{"bash", "-e"},
		env: githubEnv, id: "acme/app/99-test", onlyOnFailure: "\n        if: failure()\n",
	},
	"jenkins": {
		file: "Jenkinsfile", script: betweenMarkers, shell: []string{"sh", "-xe"},
		env: withEnv(nil, "JENKINS_URL=http://jenkins.example/ JOB_NAME=app BUILD_NUMBER=7 BUILD_USER_ID=octocat CONVERGE_AGENT_GITHUB_URL=FORGE"),
		id:  "jenkins-app-7", onlyOnFailure: "\n  post {\n    failure {\n",
	},
	"nomad": {
		file: "nomad.hcl", script: fromHeredoc, shell: []string{"sh"},
		env: withEnv(nil, "NOMAD_JOB_NAME=build NOMAD_SHORT_ALLOC_ID=0a1b2c3d NOMAD_META_engineer=octocat CONVERGE_AGENT_GITHUB_URL=FORGE"),
		id:  "build/0a1b2c3d", onlyOnFailure: `[ -e "$NOMAD_ALLOC_DIR/passed" ] ||`,
	},
}

func containerFile(t *testing.T, s ciSystem) string {
	t.Helper()
	return readText(t, filepath.Join("..", "deploy", "ci-container", s.file))
}

// TestContainerPages: every file is shown as it is, and none is run by no test.
func TestContainerPages(t *testing.T) {
	page := readText(t, filepath.Join("..", "docs", "container.md"))
	known := map[string]bool{}
	for name, s := range containerSystems {
		text := containerFile(t, s)
		known[s.file] = true
		if !strings.Contains(page, "\n"+text+"```\n") {
			t.Errorf("docs/container.md does not show %s as it is", s.file)
		}
		if s.onlyOnFailure != "" && !strings.Contains(text, s.onlyOnFailure) {
			t.Errorf("%s has no %q", s.file, s.onlyOnFailure)
		}
		// Several systems fill in what stands in braces before a shell sees it.
		for _, mark := range []string{"${", "%{", "{{"} {
			if strings.Contains(s.script(t, text), mark) {
				t.Errorf("%s: the shell part has %s", name, mark)
			}
		}
	}
	// What it shows of the options' file is taken as it is, as far as the server.
	config := filepath.Join(t.TempDir(), "box.yaml")
	writeText(t, config, between(t, page, "```yaml\nconnection:\n", "```\n"))
	writeText(t, config, "connection:\n"+readText(t, config))
	r := runCommand(t, nil, tool("agent"), "--container-config", config, "--connect-timeout", "1s", "--authorized-key", newIdentity(t).public, "ws://127.0.0.1:1/agent/a")
	if r.code != 1 || !strings.Contains(r.stderr, `in="a container of registry.example.org/build:3"`) {
		t.Errorf("the agent takes the page's configuration for %+v", r)
	}
	files, err := os.ReadDir(filepath.Join("..", "deploy", "ci-container"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("no test runs deploy/ci-container/%s", f.Name())
		}
	}
}
