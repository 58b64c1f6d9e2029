//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// ciSystem is a CI system as far as one of deploy/ci concerns it.
type ciSystem struct {
	file, page string
	// script takes the shell part out of the file's text, as the system does.
	script func(t *testing.T, text string) string
	// shell runs a file with it, as the system's documents say.
	shell []string
	env   map[string]string
	id    string
	// wraps tells that the script runs the job's own command; else it is a step
	// for jobs that have failed, which onlyOnFailure looks for.
	wraps         bool
	onlyOnFailure string
}

// makeCode is the exit code of the job's command.
const makeCode = 42

// ciSystems have the variables of each system's documents; FORGE stands for the
// local forge's address.
var ciSystems = map[string]ciSystem{
	"github": {
		file: "github-actions.yml", page: "github-actions", script: fromYAML("jobs", "test", "steps", 2, "run"),
		shell: []string{"bash", "-e"}, env: githubEnv, id: "acme/app/99-test", onlyOnFailure: "\n        if: failure()\n",
	},
	"github action": {
		file: "github-action/action.yml", page: "github-actions", script: fromYAML("runs", "steps", 0, "run"),
		shell: []string{"bash", "--noprofile", "--norc", "-eo", "pipefail"},
		env:   withEnv(githubEnv, "CONVERGE_OPTIONS=--actor --no-sftp"), id: "acme/app/99-test", onlyOnFailure: "if: failure()",
	},
	"gitea": {
		file: "gitea-actions.yml", page: "gitea-forgejo-actions", script: fromYAML("jobs", "test", "steps", 2, "run"),
		shell: []string{"sh", "-e"}, env: withEnv(githubEnv, "GITEA_ACTIONS=true"), id: "acme/app/99-test", onlyOnFailure: "\n        if: failure()\n",
	},
	"forgejo": {
		file: "gitea-actions.yml", page: "gitea-forgejo-actions", script: fromYAML("jobs", "test", "steps", 2, "run"),
		shell: []string{"bash", "-e"}, env: withEnv(githubEnv, "FORGEJO_ACTIONS=true FORGEJO_ACTOR=octocat FORGEJO_SERVER_URL=FORGE"), id: "acme/app/99-test",
		onlyOnFailure: "\n        if: failure()\n",
	},
	"gitlab": {
		file: "gitlab-ci.yml", page: "gitlab-ci", script: fromYAML("test", "script", 0), shell: []string{"bash", "-eo", "pipefail"}, wraps: true,
		env: withEnv(nil, "GITLAB_CI=true CI_PROJECT_PATH=acme/ops/app CI_JOB_ID=7 CI_PIPELINE_SOURCE=push CI_PROJECT_ID=1 GITLAB_USER_LOGIN=octocat CI_SERVER_URL=FORGE"),
		id:  "acme/ops/app/7",
	},
	"gitlab without bash": {
		file: "gitlab-ci.yml", page: "gitlab-ci", script: fromYAML("test", "script", 0), shell: []string{"sh", "-e"}, wraps: true,
		env: withEnv(nil, "GITLAB_CI=true CI_PROJECT_PATH=acme/app CI_JOB_ID=8 CI_PIPELINE_SOURCE=push CI_PROJECT_ID=1 GITLAB_USER_LOGIN=octocat CI_SERVER_URL=FORGE"),
		id:  "acme/app/8",
	},
	"jenkins": {
		file: "Jenkinsfile", page: "jenkins", script: betweenMarkers, shell: []string{"sh", "-xe"},
		env: withEnv(nil, "JENKINS_URL=http://jenkins.example/ JOB_NAME=acme/app/feature%2Fx_y BUILD_NUMBER=7 BUILD_USER_ID=octocat CONVERGE_AGENT_GITHUB_URL=FORGE"),
		id:  "jenkins-acme-app-feature-2Fx-y-7", onlyOnFailure: "\n  post {\n    failure {\n",
	},
	"woodpecker": {
		file: "woodpecker.yml", page: "woodpecker", script: fromYAML("steps", 0, "commands", 0), shell: []string{"sh", "-e"}, wraps: true,
		env: withEnv(nil, "CI=woodpecker CI_REPO=acme/app CI_PIPELINE_NUMBER=7 CI_WORKFLOW_NUMBER=1 CI_PIPELINE_EVENT=push CI_PIPELINE_AUTHOR=octocat CI_FORGE_TYPE=gitea CI_FORGE_URL=FORGE"),
		id:  "acme/app/7-1",
	},
	"drone": {
		file: "drone.yml", page: "drone", script: fromYAML("steps", 0, "commands", 0), shell: []string{"sh", "-xe"}, wraps: true,
		env: withEnv(nil, "DRONE=true DRONE_REPO=acme/app DRONE_BUILD_NUMBER=7 DRONE_STAGE_NUMBER=1 DRONE_BUILD_TRIGGER=octocat DRONE_REPO_LINK=FORGE/acme/app "+
			"CONVERGE_AGENT_ACTOR_FORGE=gitea CONVERGE_AGENT_GITEA_URL=FORGE"),
		id: "acme/app/7-1",
	},
	"circleci": {
		file: "circleci.yml", page: "circleci", script: fromYAML("jobs", "test", "steps", 2, "run", "command"), shell: []string{"bash", "-eo", "pipefail"},
		env: withEnv(nil, "CIRCLECI=true CIRCLE_PROJECT_USERNAME=acme CIRCLE_PROJECT_REPONAME=app CIRCLE_BUILD_NUM=7 CIRCLE_USERNAME=octocat "+
			"CIRCLE_REPOSITORY_URL=git@github.com:acme/app.git CONVERGE_AGENT_GITHUB_URL=FORGE"),
		id: "acme/app/7", onlyOnFailure: "\n          when: on_fail\n",
	},
	"azure": {
		file: "azure-pipelines.yml", page: "azure-pipelines", script: fromYAML("steps", 1, "bash"), shell: []string{"bash", "--noprofile", "--norc"},
		env: withEnv(nil, "TF_BUILD=True BUILD_REPOSITORY_NAME=acme/app BUILD_BUILDID=7 SYSTEM_JOBATTEMPT=1 CONVERGE_ENGINEER=octocat CONVERGE_AGENT_GITHUB_URL=FORGE"),
		id:  "acme/app/7-1", onlyOnFailure: "\n    condition: failed()\n",
	},
	"buildkite": {
		file: "buildkite-pre-exit", page: "buildkite", script: whole, shell: []string{"bash", "-c", `. "$0"`},
		env: withEnv(nil, "BUILDKITE=true BUILDKITE_COMMAND_EXIT_STATUS=42 BUILDKITE_ORGANIZATION_SLUG=acme BUILDKITE_PIPELINE_SLUG=app BUILDKITE_JOB_ID=0190-7 "+
			"CONVERGE_ENGINEER=octocat CONVERGE_AGENT_GITHUB_URL=FORGE"),
		id: "acme/app/0190-7", onlyOnFailure: "BUILDKITE_COMMAND_EXIT_STATUS",
	},
	"nomad": {
		file: "nomad.hcl", page: "nomad", script: fromHeredoc, shell: []string{"sh"}, wraps: true,
		env: withEnv(nil, "NOMAD_JOB_NAME=build NOMAD_SHORT_ALLOC_ID=0a1b2c3d NOMAD_META_engineer=octocat CONVERGE_AGENT_GITHUB_URL=FORGE"),
		id:  "build/0a1b2c3d",
	},
}

var githubEnv = withEnv(nil, "GITHUB_ACTIONS=true GITHUB_REPOSITORY=acme/app GITHUB_RUN_ID=99 GITHUB_JOB=test GITHUB_EVENT_NAME=push "+
	"GITHUB_ACTOR=octocat GITHUB_SERVER_URL=FORGE")

// withEnv adds NAME=VALUE words to a copy; --options of a value are told by their
// dashes.
func withEnv(base map[string]string, words string) map[string]string {
	env := map[string]string{}
	for k, v := range base {
		env[k] = v
	}
	last := ""
	for _, word := range strings.Fields(words) {
		if strings.HasPrefix(word, "--") {
			env[last] += " " + word
			continue
		}
		name, value, _ := strings.Cut(word, "=")
		env[name], last = value, name
	}
	return env
}

// fromYAML walks to a text by keys and indexes.
func fromYAML(path ...any) func(*testing.T, string) string {
	return func(t *testing.T, text string) string {
		t.Helper()
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		for _, step := range path {
			switch step := step.(type) {
			case string:
				v = v.(map[string]any)[step]
			case int:
				v = v.([]any)[step]
			}
		}
		script, ok := v.(string)
		if !ok || script == "" {
			t.Fatalf("no text at %v", path)
		}
		return script
	}
}

func whole(_ *testing.T, text string) string { return text }

// between returns what stands between two marks.
func between(t *testing.T, text, begin, end string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, begin)
	script, _, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("no %q and %q in\n%s", begin, end, text)
	}
	return script
}

// betweenMarkers is a text of Groovy in three quotes, where a backslash is
// written twice.
func betweenMarkers(t *testing.T, text string) string {
	t.Helper()
	return strings.ReplaceAll(between(t, text, "# converge: begin\n", "# converge: end"), `\\`, `\`)
}

// fromHeredoc is one of HCL, which cuts the indentation that all lines have, and
// fills in ${} and %{}.
func fromHeredoc(t *testing.T, text string) string {
	t.Helper()
	script := between(t, text, "<<-CONVERGE\n", "\n        CONVERGE")
	return regexp.MustCompile(`(?m)^ {10}`).ReplaceAllString(script, "")
}

// TestCI runs the shell part of every file of deploy/ci in its system's
// environment, against a server of this machine.
func TestCI(t *testing.T) {
	w := newCIWorld(t)
	for name, system := range ciSystems {
		t.Run(name, func(t *testing.T) {
			text := readText(t, filepath.Join("..", "deploy", "ci", system.file))
			script := filepath.Join(t.TempDir(), "script")
			shell := system.script(t, text)
			writeText(t, script, shell)
			// Several systems fill in what stands in braces before a shell sees it.
			if found := regexp.MustCompile(`\$\{|%\{|\{\{`).FindString(shell); found != "" {
				t.Errorf("the shell part has %s", found)
			}
			want := 0 // the job has failed before
			if system.wraps {
				want = makeCode
			} else if !strings.Contains(text+readText(t, filepath.Join("..", "docs", "ci", system.page+".md")), system.onlyOnFailure) {
				t.Errorf("it has no %q", system.onlyOnFailure)
			}

			t.Run("failed", func(t *testing.T) {
				p := w.run(t, system, script, w.good.url())
				if got := p.out.Await(t, `Its id is (\S+)`, 1)[1]; got != system.id {
					t.Errorf("its id is %s, want %s", got, system.id)
				}
				p.out.Await(t, `host key: SHA256`, 1)
				visit(t, w.identity, &agent{process: p, url: w.good.ws("/client/" + system.id)})
				if code := p.wait(t); code != want {
					t.Errorf("exit code %d, want %d\n%s", code, want, p.out)
				}
			})
			for name, test := range map[string]struct{ url, says string }{
				"no download":    {w.empty.url(), `404`},
				"wrong checksum": {w.wrong.url(), `FAILED`},
				"no checksum":    {w.sumless.url(), ``},
				"no server":      {"http://127.0.0.1:1", `curl: \(7\)`},
			} {
				t.Run(name, func(t *testing.T) {
					p := w.run(t, system, script, test.url)
					code := p.wait(t)
					if system.wraps && code != want || !system.wraps && code == 0 && system.page != "buildkite" {
						t.Errorf("exit code %d", code)
					}
					if system.page == "buildkite" && code != 0 {
						t.Errorf("the hook's exit code, %d, is in the command's place", code)
					}
					if said := p.out.String(); strings.Contains(said, "Its id is") || strings.Contains(said, "agent ran") || !regexp.MustCompile(test.says).MatchString(said) {
						t.Errorf("it said\n%s", said)
					}
				})
			}
			if system.wraps || system.page == "buildkite" {
				t.Run("succeeded", func(t *testing.T) {
					system.env = withEnv(system.env, "MAKE_CODE=0 BUILDKITE_COMMAND_EXIT_STATUS=0")
					p := w.run(t, system, script, "http://127.0.0.1:1")
					if code := p.wait(t); code != 0 || strings.Contains(p.out.String(), "curl") {
						t.Errorf("exit code %d\n%s", code, p.out)
					}
				})
			}
		})
	}
}

// TestCIPinned writes the checksum of one agent in place of the server's, as
// docs/ci/README.md says.
func TestCIPinned(t *testing.T) {
	w := newCIWorld(t)
	var line string
	for _, b := range blocks(t, "docs/ci/README.md") {
		if b.mark == "TestCIPinned" {
			line = strings.TrimSpace(b.text)
		}
	}
	system := ciSystems["gitlab"]
	shell := system.script(t, readText(t, filepath.Join("..", "deploy", "ci", system.file)))
	lines := strings.Split(shell, "\n")
	at := slices.IndexFunc(lines, func(s string) bool { return strings.Contains(s, "SHA256SUMS") })
	for sum, want := range map[string]bool{fileSum(t, tool("agent")): true, strings.Repeat("0", 64): false} {
		lines[at] = strings.Replace(line, "0123456789abcdef…", sum, 1)
		script := filepath.Join(t.TempDir(), "script")
		writeText(t, script, strings.Join(lines, "\n"))
		p := w.run(t, system, script, w.good.url())
		if want {
			p.out.Await(t, `host key: SHA256`, 1)
			visit(t, w.identity, &agent{process: p, url: w.good.ws("/client/" + system.id)})
		}
		if code := p.wait(t); code != makeCode || strings.Contains(p.out.String(), "Its id is") != want {
			t.Errorf("%s: exit code %d\n%s", lines[at], code, p.out)
		}
	}
}

// TestCIPages: every file is shown on its page, as it is, and every page is in
// the list of them.
func TestCIPages(t *testing.T) {
	list := readText(t, filepath.Join("..", "docs", "ci", "README.md"))
	shown := map[string]bool{}
	for _, system := range ciSystems {
		page := readText(t, filepath.Join("..", "docs", "ci", system.page+".md"))
		if !strings.Contains(list, "("+system.page+".md)") {
			t.Errorf("the list lacks %s", system.page)
		}
		if file := readText(t, filepath.Join("..", "deploy", "ci", system.file)); !strings.Contains(page, "\n"+file+"```\n") {
			t.Errorf("docs/ci/%s.md does not show deploy/ci/%s as it is", system.page, system.file)
		}
		shown[system.file] = true
	}
	err := filepath.WalkDir(filepath.Join("..", "deploy", "ci"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if name, _ := filepath.Rel(filepath.Join("..", "deploy", "ci"), path); !shown[name] {
				t.Errorf("no test runs deploy/ci/%s", name)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// ciWorld is what all of them share.
type ciWorld struct {
	identity                    identity
	forge, ca, bin              string
	good, empty, wrong, sumless *server
}

func newCIWorld(t *testing.T) *ciWorld {
	t.Helper()
	w := &ciWorld{identity: newIdentity(t), bin: t.TempDir()}
	w.forge, w.ca = keyForge(t, w.identity)
	w.good, w.empty = startServer(t, "--downloads", downloads(t)), startServer(t)
	// A job's make, that does nothing but end.
	writeText(t, filepath.Join(w.bin, "make"), fmt.Sprintf("#!/bin/sh\nexit ${MAKE_CODE:-%d}\n", makeCode))
	// What is handed out is not what the checksums are of, or there are none: it
	// would say so if it was run.
	fake := filepath.Join(t.TempDir(), "docs")
	name := fmt.Sprintf("agent-%s-%s", runtime.GOOS, runtime.GOARCH)
	writeText(t, filepath.Join(fake, name), "#!/bin/sh\necho agent ran\n")
	w.sumless = staticServer(t, fake)
	other := filepath.Join(t.TempDir(), "docs")
	writeText(t, filepath.Join(other, name), "#!/bin/sh\necho agent ran\n")
	writeText(t, filepath.Join(other, "SHA256SUMS"), strings.Repeat("0", 64)+"  "+name+"\n")
	w.wrong = staticServer(t, other)
	return w
}

// run runs a script in the environment of a system, and nothing but that.
func (w *ciWorld) run(t *testing.T, system ciSystem, script, url string) *process {
	t.Helper()
	env := []string{
		"PATH=" + w.bin + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "GORACE=atexit_sleep_ms=0",
		"CONVERGE_URL=" + url, "CONVERGE_AGENT_CA=" + w.ca, "CONVERGE_AGENT_SHELL=/bin/bash", "CONVERGE_AGENT_CONNECT_TIMEOUT=10s",
	}
	for name, value := range system.env {
		env = append(env, name+"="+strings.ReplaceAll(value, "FORGE", w.forge))
	}
	args := append(append([]string{"-i"}, env...), system.shell...)
	return start(t, nil, "env", append(args, script)...)
}
