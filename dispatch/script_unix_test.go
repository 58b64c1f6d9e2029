//go:build unix

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/pkg/clitest"
	"example.com/converge/pkg/nomadtest"
)

// commit is the one that the scripts build.
const commit = "bffeb74224043ba2feb48d137756c8a9331c449a"

// TestScripts runs testdata/script: what dispatch says on the command line. Each
// has a Nomad, a Consul and a Gitea of its own; builds really run.
func TestScripts(t *testing.T) {
	clitest.Run(t, func(env *testscript.Env) error {
		tb := env.T().(testing.TB)
		n, c, g := nomadtest.NewNomad(tb), nomadtest.NewConsul(tb), nomadtest.NewGitea(tb)
		n.Register(nomadtest.Builder("builder", engine.MetaOptional...))
		n.RunScripts(builder(env.WorkDir))
		repo := g.CloneURL("team/project")
		c.Put(repo, map[string]any{
			"hook": map[string]any{"token": "s3cr3t", "secret": "hmac"}, "gitea": map[string]any{"url": g.URL, "token": g.Token},
			"trusted": map[string]any{"senders": []string{"ann"}}, "inject": "SECRET1=xx",
		})
		c.Put(g.CloneURL("team/broken"), `{"hook":{"token":5}}`)
		state := filepath.Join(env.WorkDir, "state")
		if err := os.Mkdir(state, 0o700); err != nil {
			return err
		}
		env.Vars = append(env.Vars, "ALBATROS_URL=https://ci.example.com", "NOMAD_ADDR="+n.URL, "CONSUL_HTTP_ADDR="+c.URL,
			"REPO="+repo, "BROKEN="+g.CloneURL("team/broken"), "COMMIT="+commit, "CONVERGE_DISPATCH_STATE_DIR="+state)
		return nil
	}, map[string]func(*testscript.TestScript, bool, []string){})
}

// builder is a job that does what its flavour says.
func builder(dir string) func(context.Context, nomadtest.Task) int {
	return nomadtest.Exec{Dir: dir + "/alloc", Command: []string{"/bin/sh", "-c", `
case $NOMAD_META_FLAVOR in
default) echo "out of $NOMAD_META_BRANCH"; echo err >&2; if [ -f local/payload ]; then echo "with secrets"; fi ;;
fail) echo broken >&2; exit 3 ;;
esac`}}.Run
}
