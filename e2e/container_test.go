//go:build unix && engine

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// These tests need an engine, the one at CONVERGE_TEST_ENGINE, unix://PATH, as
// scripts/engines starts it.

// Images of the tests: Debian's busybox, and nothing at all.
const (
	shellImage = "localhost/converge-e2e-shell:latest"
	emptyImage = "localhost/converge-e2e-empty:latest"
)

// docker runs the engine's client and returns what it prints.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	return strings.TrimSpace(dockerIn(t, nil, args...).must(t).stdout)
}

func dockerIn(t *testing.T, stdin []byte, args ...string) result {
	t.Helper()
	return runCommand(t, bytes.NewReader(stdin), "/usr/bin/docker", append([]string{"-H", engine(t)}, args...)...)
}

// engine is the engine's address.
func engine(t *testing.T) string {
	t.Helper()
	host := os.Getenv("CONVERGE_TEST_ENGINE")
	if !strings.HasPrefix(host, "unix://") {
		t.Fatal("CONVERGE_TEST_ENGINE names no engine: run scripts/engines")
	}
	return host
}

// images makes the images.
func images(t *testing.T) {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("busybox-static is needed: %v", err)
	}
	// A step that fails, unless the file code says otherwise.
	const makeScript = "#!/bin/sh\necho made > /made\n[ ! -e code ] || exit $(cat code)\nexit 42\n"
	entries := []tar.Header{
		{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "bin/make", Mode: 0o755},
	}
	for _, name := range []string{"sh", "cat", "echo", "true", "sleep", "id", "pwd", "ls", "touch", "stty", "kill"} {
		entries = append(entries, tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"})
	}
	content := map[string][]byte{"bin/busybox": busybox, "bin/make": []byte(makeScript)}
	for image, entries := range map[string][]tar.Header{shellImage: entries, emptyImage: {{Typeflag: tar.TypeReg, Name: "empty", Mode: 0o644}}} {
		var root bytes.Buffer
		w := tar.NewWriter(&root)
		for _, h := range entries {
			h.Size = int64(len(content[h.Name]))
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(content[h.Name]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		dockerIn(t, root.Bytes(), "import", "--change", `CMD ["/bin/sh"]`, "-", image).must(t)
	}
}

// staticAgent is an agent as servers hand it out.
var staticAgent = sync.OnceValues(func() (string, error) {
	file := filepath.Join(bin, "agent-static")
	build := exec.Command("go", "build", "-trimpath", "-o", file, "./agent")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build the agent: %w\n%s", err, out)
	}
	return file, nil
})

// handedOut is a folder with it, for a server to hand out.
func handedOut(t *testing.T) (dir, file string) {
	t.Helper()
	file, err := staticAgent()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.Link(file, filepath.Join(dir, fmt.Sprintf("agent-%s-%s", runtime.GOOS, runtime.GOARCH))); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

// ours are the containers that agents have made.
func ours(t *testing.T) []string {
	t.Helper()
	return strings.Fields(docker(t, "ps", "--all", "--quiet", "--filter", "label=converge.owner"))
}

// containerAgent starts an agent whose sessions run in a container.
func containerAgent(t *testing.T, program string, s *server, id identity, args ...string) *agent {
	t.Helper()
	all := append([]string{
		"--authorized-key", id.public, "--engine", engine(t), "--log-level", "info", "--keep",
		"--wsproxy", tool("wsproxy"), "--ssh-option=-i" + id.file, "--ssh-option=-oIdentitiesOnly=yes", "--ssh-option=-Fnone", "--ssh-option=-oBatchMode=yes",
	}, args...)
	return awaitAgent(t, start(t, []string{"XDG_CACHE_HOME=" + t.TempDir()}, program, append(all, s.ws("/agent/"+uniqueID()))...))
}

// TestContainerImage: a static agent is itself the guest, and stock clients do in
// a new container what they do elsewhere.
func TestContainerImage(t *testing.T) {
	images(t)
	_, program := handedOut(t)
	s, id := startServer(t), newIdentity(t)
	t.Run("shell", func(t *testing.T) {
		a := containerAgent(t, program, s, id, "--image", shellImage, "--container-pull", "never", "--container-env", "ANSWER=42", "--container-workdir", "/tmp", "--metrics-listen", "127.0.0.1:0")
		w := viaWsproxy(id, a.url)
		r := w.ssh(t, strings.NewReader("typed"), `cat; pwd; echo $ANSWER; echo wrong >&2; exit 7`)
		if r.code != 7 || r.stdout != "typed/tmp\n42\n" || r.stderr != "wrong\n" {
			t.Errorf("%+v", r)
		}
		url := a.out.Await(t, `figures are shown.* at=(\S+)`, 1)[1]
		if r := runCommand(t, nil, "curl", "-fsS", url).must(t); !regexp.MustCompile(`(?s)\nbackend_requests [1-9]\d*\n.*\nbackend_failures 0\n.*\ncontainers_open \d\n`).MatchString(r.stdout) {
			t.Errorf("the figures are %s", r.stdout)
		}
		if r := w.ssh(t, nil, "kill -TERM $$"); r.code != 255 {
			t.Errorf("a signal is %+v", r)
		}
		eventually(t, a.process, func() bool { return len(ours(t)) == 0 })
	})
	t.Run("without a shell", func(t *testing.T) {
		a := containerAgent(t, program, s, id, "--image", emptyImage, "--container-pull", "never")
		w := viaWsproxy(id, a.url)
		file, sum := randomFile(t, 1<<20)
		back := filepath.Join(t.TempDir(), "back")
		w.sftp(t, fmt.Sprintf("put %s /file\nget /file %s\nls /empty\n", file, back)).must(t)
		if got := fileSum(t, back); got != sum {
			t.Errorf("%s came back, want %s", got, sum)
		}
		w.scp(t, file, "abc@localhost:/other").must(t)
	})
	t.Run("no image", func(t *testing.T) {
		a := containerAgent(t, program, s, id, "--image", "localhost/converge-e2e-none", "--container-pull", "never")
		if r := viaWsproxy(id, a.url).ssh(t, nil, "true"); r.code == 0 {
			t.Errorf("%+v", r)
		}
		a.out.Await(t, `No such image`, 1)
	})
	if left := ours(t); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestContainerSweep: what an agent leaves that is killed, the next one removes,
// and no container of one that lives.
func TestContainerSweep(t *testing.T) {
	images(t)
	_, program := handedOut(t)
	s, id := startServer(t), newIdentity(t)
	enter := func(a *agent) *process {
		args := append(viaWsproxy(id, a.url).options, "abc@localhost", "echo inside; exec sleep 1000")
		p := start(t, nil, "ssh", args...)
		p.out.Await(t, "inside", 1)
		return p
	}
	killed := containerAgent(t, program, s, id, "--image", shellImage, "--container-pull", "never")
	enter(killed)
	left := ours(t)
	if len(left) != 1 {
		t.Fatalf("there are %q", left)
	}
	living := containerAgent(t, program, s, id, "--image", shellImage, "--container-pull", "never")
	enter(living)
	killed.kill(t)
	if got := ours(t); len(got) != 2 {
		t.Fatalf("there are %q", got)
	}
	next := containerAgent(t, program, s, id, "--image", shellImage, "--container-pull", "never")
	next.out.Await(t, `removed containers that were left behind.* count=1`, 1)
	if got := ours(t); len(got) != 1 || got[0] == left[0] {
		t.Errorf("there are %q, of which %q was left", got, left)
	}
	living.signal(syscall.SIGINT)
	living.wait(t)
	living.out.Await(t, `the container back end ends.* backend_requests=\d+ backend_failures=\d+ containers_open=0`, 1)
	if got := ours(t); len(got) != 0 {
		t.Errorf("an agent that ended left %q", got)
	}
}

// TestContainerExisting: an agent that cannot be copied itself gets a guest from
// its server; the container stays.
func TestContainerExisting(t *testing.T) {
	images(t)
	folder, _ := handedOut(t)
	s, id := startServer(t, "--downloads", folder), newIdentity(t)
	name := uniqueID()
	docker(t, "run", "--detach", "--name", name, "--label", "job="+name, "--network", "none", shellImage, "/bin/sleep", "100000")
	t.Cleanup(func() { docker(t, "rm", "--force", name) })
	a := containerAgent(t, tool("agent"), s, id, "--container", "label=job="+name) // built with the race detector: not static
	w := viaWsproxy(id, a.url)
	w.ssh(t, nil, "touch /here").must(t)
	a.out.Await(t, `downloaded a guest for containers`, 1)
	w.sftp(t, "get /here "+filepath.Join(t.TempDir(), "here")+"\n").must(t)
	if got := docker(t, "exec", name, "ls", "/here"); got != "/here" {
		t.Errorf("%q", got)
	}
	// Nobody hands out anything: signals and forwards are missing, and said to be.
	bare := containerAgent(t, tool("agent"), startServer(t), id, "--container", name, "--container-env", "A=1")
	if r := viaWsproxy(id, bare.url).ssh(t, nil, "echo $A"); r.stdout != "1\n" {
		t.Errorf("%+v\n%s", r, bare.out)
	}
}

// TestContainerCI runs the shell part of every file of deploy/ci-container in its
// system's environment.
func TestContainerCI(t *testing.T) {
	images(t)
	folder, _ := handedOut(t)
	w := newCIWorld(t)
	s := startServer(t, "--downloads", folder)
	// The client's own options are DOCKER_HOST's alone.
	if err := os.Symlink("/usr/bin/docker", filepath.Join(w.bin, "docker")); err != nil {
		t.Fatal(err)
	}
	for name, system := range containerSystems {
		t.Run(name, func(t *testing.T) {
			source := t.TempDir()
			writeText(t, filepath.Join(source, "data", "in-data"), "")
			writeText(t, filepath.Join(source, "in-source"), "")
			script := filepath.Join(t.TempDir(), "script")
			writeText(t, script, "cd "+source+"\n"+system.script(t, containerFile(t, system)))
			system.env = withEnv(system.env, strings.Join([]string{
				"DOCKER_HOST=" + engine(t), "IMAGE=" + shellImage, "WORKSPACE=" + source, "NOMAD_ALLOC_DIR=" + source, "NOMAD_META_image=" + shellImage,
				"XDG_CACHE_HOME=" + t.TempDir(), "CONVERGE_AGENT_SHELL=/bin/sh",
			}, " "))
			want, expected := 0, "in-source"
			switch name {
			case "gitlab":
				want, expected = 42, "/made"
			case "github":
				// The step before, which has failed.
				step := containerFile(t, system)
				line := fromYAML("jobs", "test", "steps", 1, "run")(t, step)
				if r := w.runStep(t, source, system, line); r.code != 42 {
					t.Fatalf("the step: %+v", r)
				}
				t.Cleanup(func() { docker(t, "rm", "converge-step"); docker(t, "rmi", "converge-step") })
				expected = "/made"
			case "nomad":
				expected = "in-data"
			}
			p := w.run(t, system, script, s.url())
			if got := p.out.Await(t, `Its id is (\S+)`, 1)[1]; got != system.id {
				t.Errorf("its id is %s, want %s", got, system.id)
			}
			p.out.Await(t, `host key: SHA256`, 1)
			a := &agent{process: p, url: s.ws("/client/" + system.id)}
			if r := viaWsproxy(w.identity, a.url).ssh(t, nil, "ls "+expected); r.stdout != expected+"\n" {
				t.Errorf("the step's files are not there: %+v\n%s", r, p.out)
			}
			visit(t, w.identity, a)
			if code := p.wait(t); code != want {
				t.Errorf("exit code %d, want %d\n%s", code, want, p.out)
			}
			if left := ours(t); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if system.wraps || name == "nomad" {
				writeText(t, filepath.Join(source, "code"), "0")
				writeText(t, filepath.Join(source, "passed"), "")
				p := w.run(t, system, script, "http://127.0.0.1:1")
				if code := p.wait(t); code != 0 || strings.Contains(p.out.String(), "curl") {
					t.Errorf("a step that succeeded: exit code %d\n%s", code, p.out)
				}
			}
		})
	}
	if left := docker(t, "ps", "--all", "--quiet"); left != "" {
		t.Errorf("left: %q", left)
	}
}

// runStep runs a line of a system in a folder.
func (w *ciWorld) runStep(t *testing.T, dir string, system ciSystem, line string) result {
	t.Helper()
	args := []string{"PATH=" + w.bin + ":" + os.Getenv("PATH")}
	for name, value := range system.env {
		args = append(args, name+"="+value)
	}
	return runCommand(t, nil, "env", append(args, "sh", "-ec", "cd "+dir+"; "+line)...)
}
