//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// block is a block of a job file, evaluated as nomad run does.
type hclBlock struct {
	values map[string]cty.Value
	blocks map[string][]*hclBlock // by type
	labels []string
}

// text is a value as Nomad prints it; "" where there is none.
func (b *hclBlock) text(name string) string {
	v, ok := b.values[name]
	switch {
	case !ok || v.IsNull():
		return ""
	case v.Type() == cty.String:
		return v.AsString()
	case v.Type() == cty.Bool:
		return fmt.Sprint(v.True())
	case v.Type() == cty.Number:
		return v.AsBigFloat().String()
	}
	return v.GoString()
}

func (b *hclBlock) texts(name string) []string {
	var all []string
	if v, ok := b.values[name]; ok {
		for _, e := range v.AsValueSlice() {
			all = append(all, e.AsString())
		}
	}
	return all
}

// one is the only block of a type.
func (b *hclBlock) one(t *testing.T, kind string) *hclBlock {
	t.Helper()
	if len(b.blocks[kind]) != 1 {
		t.Fatalf("there are %d blocks %s, want one", len(b.blocks[kind]), kind)
	}
	return b.blocks[kind][0]
}

// jobFile reads a job file with the defaults of its variables, and others.
func jobFile(t *testing.T, name string, variables map[string]cty.Value) *hclBlock {
	t.Helper()
	path := filepath.Join("..", "deploy", "nomad", name)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file, diagnostics := hclsyntax.ParseConfig(text, name, hcl.InitialPos)
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	body := file.Body.(*hclsyntax.Body)
	vars := map[string]cty.Value{}
	for _, b := range body.Blocks {
		if b.Type == "variable" {
			v, diagnostics := b.Body.Attributes["default"].Expr.Value(nil)
			if diagnostics.HasErrors() {
				t.Fatal(diagnostics)
			}
			vars[b.Labels[0]] = v
		}
	}
	maps.Copy(vars, variables)
	context := &hcl.EvalContext{
		Variables: map[string]cty.Value{"var": cty.ObjectVal(vars), "NOMAD_TASK_DIR": cty.StringVal("${NOMAD_TASK_DIR}")},
		// As in the root of the repository, where the documented commands are given.
		Functions: map[string]function.Function{"file": function.New(&function.Spec{
			Params: []function.Parameter{{Name: "path", Type: cty.String}},
			Type:   function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				text, err := os.ReadFile(filepath.Join("..", args[0].AsString()))
				return cty.StringVal(string(text)), err
			},
		}), "fileexists": function.New(&function.Spec{
			Params: []function.Parameter{{Name: "path", Type: cty.String}},
			Type:   function.StaticReturnType(cty.Bool),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				_, err := os.Stat(filepath.Join("..", args[0].AsString()))
				return cty.BoolVal(err == nil), nil
			},
		})},
	}
	root := &hclBlock{blocks: map[string][]*hclBlock{}}
	for _, b := range body.Blocks {
		if b.Type == "job" {
			root.blocks["job"] = append(root.blocks["job"], evaluate(t, b, context))
		}
	}
	return root.one(t, "job")
}

func evaluate(t *testing.T, b *hclsyntax.Block, context *hcl.EvalContext) *hclBlock {
	t.Helper()
	out := &hclBlock{values: map[string]cty.Value{}, blocks: map[string][]*hclBlock{}, labels: b.Labels}
	for name, a := range b.Body.Attributes {
		v, diagnostics := a.Expr.Value(context)
		if diagnostics.HasErrors() {
			t.Fatal(diagnostics)
		}
		out.values[name] = v
	}
	for _, inner := range b.Body.Blocks {
		out.blocks[inner.Type] = append(out.blocks[inner.Type], evaluate(t, inner, context))
	}
	return out
}

// TestJobFiles: the shipped job files keep the contract with dispatch, and end a
// build that has failed.
func TestJobFiles(t *testing.T) {
	const isolated = "/var/run/secrets/albatros/secret.txt"
	for name, test := range map[string]struct {
		file, job, driver, secret, command string
		variables                          map[string]cty.Value
		tasks                              []string
	}{
		"exec":     {file: "builder.hcl", job: "builder", driver: "exec", secret: isolated, command: "${NOMAD_TASK_DIR}/build.sh", tasks: []string{"executor"}},
		"raw_exec": {file: "builder.hcl", job: "builder", driver: "raw_exec", command: "${NOMAD_TASK_DIR}/build.sh", variables: map[string]cty.Value{"driver": cty.StringVal("raw_exec")}, tasks: []string{"executor"}},
		"docker":   {file: "builder-docker.hcl", job: "builder", driver: "docker", secret: isolated, command: "/local/build.sh", tasks: []string{"executor"}},
		"nixcache": {file: "nixcache.hcl", job: "nixcache", driver: "docker", secret: isolated, command: "/local/nixcache.sh", tasks: []string{"daemon", "executor", "gc", "store"}},
	} {
		t.Run(name, func(t *testing.T) {
			job := jobFile(t, test.file, test.variables)
			if job.labels[0] != test.job || job.text("namespace") != "ci" || job.text("type") != "batch" {
				t.Errorf("job %q, %v", job.labels, job.values)
			}
			parameterized := job.one(t, "parameterized")
			if got := parameterized.texts("meta_required"); !slices.Equal(got, []string{"REPO_URL", "COMMIT", "BRANCH", "FLAVOR"}) || parameterized.text("payload") != "optional" {
				t.Errorf("it wants %q, payload %s", got, parameterized.text("payload"))
			}
			if got := parameterized.texts("meta_optional"); len(got) != 9 || got[0] != "DISPATCH_ENVELOPE" || got[8] != "DISPATCH_NONCE" {
				t.Errorf("it permits %q", got)
			}
			group := job.one(t, "group")
			restart, reschedule := group.one(t, "restart"), group.one(t, "reschedule")
			if group.labels[0] != "runner" || restart.text("attempts") != "0" || restart.text("mode") != "fail" || reschedule.text("attempts") != "0" || reschedule.text("unlimited") != "false" {
				t.Errorf("group %q, %v, %v", group.labels, restart.values, reschedule.values)
			}
			tasks := map[string]*hclBlock{}
			for _, task := range group.blocks["task"] {
				tasks[task.labels[0]] = task
				for _, template := range task.blocks["template"] {
					if template.text("change_mode") != "noop" {
						t.Errorf("task %q, %s: a change would end it", task.labels, template.text("destination"))
					}
					if text := template.text("data"); len(text) > 1 && (template.text("left_delimiter") != "[[[[" || template.text("right_delimiter") != "]]]]" || template.text("perms") != "0755") {
						t.Errorf("task %q, %s: is a template, and a script", task.labels, template.text("destination"))
					}
				}
			}
			if got := slices.Sorted(maps.Keys(tasks)); !slices.Equal(got, test.tasks) {
				t.Fatalf("tasks %q, want %q", got, test.tasks)
			}
			executor := tasks["executor"]
			config := executor.one(t, "config")
			if executor.text("driver") != test.driver || executor.one(t, "dispatch_payload").text("file") != "payload" || config.text("command") != "/bin/sh" || config.texts("args")[0] != test.command {
				t.Errorf("task executor: %v, %v", executor.values, config.values)
			}
			if env := executor.one(t, "env"); env.text("BUILDER_SECRET_FILE") != test.secret || env.text("BUILDER_TIMEOUT") != "7200" {
				t.Errorf("task executor: %v", env.values)
			}
			if executor.blocks["lifecycle"] != nil {
				t.Error("task executor is not the main one")
			}
			if got := executor.blocks["template"][0]; got.text("data") != readText(t, "../deploy/nomad/build.sh") || got.text("destination") != "local/build.sh" {
				t.Errorf("task executor runs %s", got.text("destination"))
			}
			if test.job == "nixcache" {
				checkNixcache(t, tasks)
			}
		})
	}
	// Nomad itself, where there is one.
	if nomad := os.Getenv("NOMAD_BIN"); nomad != "" {
		for _, args := range [][]string{
			{"builder.hcl"}, {"-var", "driver=raw_exec", "builder.hcl"}, {"builder-docker.hcl"}, {"nixcache.hcl"},
			{"deploy/nomad/builder.hcl"}, {"deploy/nomad/builder-docker.hcl"}, {"deploy/nomad/nixcache.hcl"},
		} {
			cmd := exec.Command(nomad, append([]string{"job", "run", "-output"}, args...)...)
			if cmd.Dir = ".."; !strings.Contains(args[len(args)-1], "/") {
				cmd.Dir = "../deploy/nomad"
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("nomad job run -output %q: %v\n%s", args, err, out)
			}
		}
	}
}

// checkNixcache: a build sees the store read-only, and what writes runs beside it.
func checkNixcache(t *testing.T, tasks map[string]*hclBlock) {
	t.Helper()
	for name, want := range map[string]struct{ hook, sidecar, volume, does string }{
		"store":    {"prestart", "", "/var/cache/albatros:/cache", "store"},
		"daemon":   {"prestart", "true", "/var/cache/albatros/nix:/nix", "daemon"},
		"executor": {"", "", "/var/cache/albatros/nix:/nix:ro", "build"},
		"gc":       {"poststop", "", "/var/cache/albatros/nix:/nix", "gc"},
	} {
		config := tasks[name].one(t, "config")
		if got := config.texts("volumes"); !slices.Equal(got, []string{want.volume}) {
			t.Errorf("task %s sees %q", name, got)
		}
		if got := config.texts("args"); !slices.Equal(got, []string{"/local/nixcache.sh", want.does}) {
			t.Errorf("task %s does %q", name, got)
		}
		hook, sidecar := "", ""
		if all := tasks[name].blocks["lifecycle"]; all != nil {
			hook, sidecar = all[0].text("hook"), all[0].text("sidecar")
		}
		if hook != want.hook || sidecar != want.sidecar {
			t.Errorf("task %s is %s, sidecar %s", name, hook, sidecar)
		}
	}
}

// TestNixcacheStore: while a store is filled, of which nothing has a root yet,
// nobody else collects garbage there.
func TestNixcacheStore(t *testing.T) {
	dir := t.TempDir()
	// The script's folders are at the root of its container.
	script := strings.NewReplacer("/cache", dir+"/cache", "/nix/var", dir+"/nix/var").Replace(readText(t, "../deploy/nomad/nixcache.sh"))
	writeText(t, filepath.Join(dir, "nixcache.sh"), script)
	alive := filepath.Join(dir, "cache", dir, "nix/var/nix/albatros/a110c")
	writeText(t, filepath.Join(dir, "bin/nix"), "#!/bin/sh\ntest -e "+alive+" && echo \"$1, kept\"")
	if err := os.MkdirAll(filepath.Join(dir, "nix/var/nix/profiles/default"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "cache", dir, "nix/var/nix/profiles"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", filepath.Join(dir, "nixcache.sh"), "store")
	cmd.Env = []string{"PATH=" + filepath.Join(dir, "bin") + ":/usr/bin:/bin", "NOMAD_ALLOC_ID=a110c"}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "copy, kept\n" {
		t.Errorf("%v: %s", err, out)
	}
}
