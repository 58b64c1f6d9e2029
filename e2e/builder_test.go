//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// awkward are secrets as nobody would write them.
const awkward = "SECRET1=xx\nSECRET2=a\x00b\xff\r\n\n\nNOT_AN_OPTION=1\n no newline"

// TestBuilder: a build gets the commit, the variables, and the secrets byte for
// byte in a file of its own; nothing of dispatch's own reaches it, and the secrets
// are gone afterwards.
func TestBuilder(t *testing.T) {
	out := filepath.Join(t.TempDir(), "secret")
	s := newSources(t, `#!/bin/sh
		cp "$SECRET_PATH" `+out+`
		stat -c 'mode %a %n' "$SECRET_PATH" "${SECRET_PATH%/*}" | sed "s#${SECRET_PATH%/*}#DIR#"
		printf '%s|%s|%s|%s\n' "$REPO_URL" "$COMMIT" "$BRANCH" "$FLAVOR"
		git rev-parse HEAD; git remote get-url origin; git status --porcelain
		env
		find "$NOMAD_TASK_DIR" "$NOMAD_SECRETS_DIR" -type f -not -path '*/.git/*' | xargs cat
		grep -E 'SigIgn' /proc/self/status
		echo err >&2`)
	commit := s.commit()
	token := "dG9rZW4tb2YtdGhlLXRlc3Q"
	tests := map[string]struct {
		payload []byte
		env     []string
		want    string
	}{
		"trusted":              {payload: []byte(awkward), want: awkward},
		"trusted, in the jobs": {payload: envelope(awkward, "DISPATCH_DEBUG_URL=http://127.0.0.1:1/builds/", "DISPATCH_DEBUG_TOKEN="+token, "CONVERGE_AGENT_GITEA_USER=alice", "CONVERGE_AGENT_GITEA_USER=bob"), env: []string{"NOMAD_META_DISPATCH_ENVELOPE=1", "NOMAD_META_DISPATCH_NONCE=" + token, "CONVERGE_AGENT_TOKEN=" + token}, want: awkward},
		"empty envelope":       {payload: envelope(""), env: []string{"NOMAD_META_DISPATCH_ENVELOPE=1"}},
		"no envelope":          {payload: envelope("x"), want: string(envelope("x"))},
		"not trusted":          {},
		"no secrets":           {payload: []byte{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			k := newTask(t, s.url(), commit, test.payload, test.env...)
			r := k.run().must(t)
			if got := readText(t, out); got != test.want {
				t.Errorf("the secrets are %q, want %q", got, test.want)
			}
			for _, want := range []string{
				"mode 600 DIR/secret.txt\n", "mode 700 DIR\n", s.url() + "|" + commit + "|main|default\n", "\n" + commit + "\n" + s.url() + "\n",
			} {
				if !strings.Contains(r.stdout, want) {
					t.Errorf("%q is not in the output:\n%s", want, r.stdout)
				}
			}
			// Above 31 they are the C library's, which its posix_spawn ignores.
			ignored := regexp.MustCompile(`SigIgn:\t([0-9a-f]{16})\n`).FindStringSubmatch(r.stdout)
			if ignored == nil {
				t.Fatalf("the ignored signals are not in the output:\n%s", r.stdout)
			}
			if mask, err := strconv.ParseUint(ignored[1], 16, 64); err != nil || mask&(1<<31-1) != 0 {
				t.Errorf("the build ignores the signals %x (%v)", mask, err)
			}
			for _, not := range []string{token, "\nCONVERGE_AGENT_", "\nDISPATCH_DEBUG"} {
				if strings.Contains(r.stdout, not) {
					t.Errorf("the build sees %q:\n%s", not, r.stdout)
				}
			}
			if r.stderr != "err\n" {
				t.Errorf("stderr %q", r.stderr)
			}
			for _, gone := range []string{"local/payload", "secrets/albatros/secret.txt", "secrets/builder"} {
				if _, err := os.Lstat(k.file(gone)); err == nil {
					t.Errorf("%s is still there", gone)
				}
			}
		})
	}
}

// TestBuilderFails: each failure has its status, and its reason is the last line.
func TestBuilderFails(t *testing.T) {
	none := newSources(t, "")
	writeText(t, filepath.Join(none.work, "README"), "x")
	plain := newSources(t, "")
	writeText(t, filepath.Join(plain.work, ".albatros"), "echo not executable")
	folder := newSources(t, "")
	writeText(t, filepath.Join(folder.work, ".albatros", "x"), "#!/bin/sh")
	exits := newSources(t, "#!/bin/sh\nexit 42")
	killed := newSources(t, "#!/bin/sh\nkill -KILL $$")
	slow := newSources(t, "#!/bin/sh\nexec sleep 1000")
	own := newSources(t, "#!/bin/sh\nexit 124")
	for name, test := range map[string]struct {
		s    *sources
		env  []string
		code int
		last string
	}{
		"no .albatros":      {s: none, code: 66, last: "builder: no executable .albatros at COMMIT"},
		"not executable":    {s: plain, code: 66, last: "builder: no executable .albatros at COMMIT"},
		"a folder":          {s: folder, code: 66, last: "builder: no executable .albatros at COMMIT"},
		"exit status":       {s: exits, code: 42},
		"signal":            {s: killed, code: 137, last: "Killed"},
		"too long":          {s: slow, env: []string{"BUILDER_TIMEOUT=1", "BUILDER_CLONE_TIMEOUT=7200"}, code: 124, last: "builder: the build took longer than 1 seconds"},
		"status of timeout": {s: own, code: 124},
		"another version":   {s: exits, env: []string{"NOMAD_META_DISPATCH_ENVELOPE=1"}, code: 70, last: "builder: the payload is not an envelope of version 1: take the builder of this release of dispatch"},
	} {
		t.Run(name, func(t *testing.T) {
			commit := test.s.commit()
			r := newTask(t, test.s.url(), commit, []byte("converge-dispatch 2\n\n"), test.env...).run()
			lines := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
			if last := lines[len(lines)-1]; r.code != test.code || last != strings.ReplaceAll(test.last, "COMMIT", commit) {
				t.Errorf("exit code %d, %q", r.code, r.stderr)
			}
		})
	}
	t.Run(".converge", func(t *testing.T) {
		s := newSources(t, "")
		writeText(t, filepath.Join(s.work, ".converge"), "#!/bin/sh\necho ours")
		if r := newTask(t, s.url(), s.commit(), nil).run(); r.code != 0 || r.stdout != "ours\n" {
			t.Errorf("exit code %d, %q", r.code, r.stdout)
		}
	})
	t.Run("lost commit", func(t *testing.T) {
		lost := strings.Repeat("0a", 20)
		r := newTask(t, exits.url(), lost, nil).run()
		if want := "builder: the commit " + lost + " is not at " + exits.url() + ", or that does not answer\n"; r.code != 66 || !strings.HasSuffix(r.stderr, want) {
			t.Errorf("exit code %d, %q", r.code, r.stderr)
		}
	})
}

// TestBuilderClones: the commit is got where the server gives only branches, and
// nothing that a repository, a webhook or the machine's configuration says is run.
func TestBuilderClones(t *testing.T) {
	s := newSources(t, "#!/bin/sh\ncat text; test ! -e trap/file")
	writeText(t, filepath.Join(s.work, "text"), "first\n")
	writeText(t, filepath.Join(s.work, ".gitattributes"), "text filter=evil\n")
	trap := newSources(t, "")
	writeText(t, filepath.Join(trap.work, "file"), "x")
	trap.commit()
	s.git(s.work, "submodule", "--quiet", "add", trap.url(), "trap")
	first := s.commit()
	writeText(t, filepath.Join(s.work, "text"), "second\n")
	s.commit()
	evil := filepath.Join(t.TempDir(), "evil")
	home := func(k *task) {
		writeText(t, k.file("home/templates/hooks/post-checkout"), "#!/bin/sh\ntouch "+evil)
		writeText(t, k.file("home/.gitconfig"), fmt.Sprintf(
			"[init]\n templateDir = %s\n[core]\n hooksPath = %s\n fsmonitor = touch %s\n[filter \"evil\"]\n smudge = touch %s\n[submodule]\n recurse = true\n[url \"/nowhere\"]\n insteadOf = %s\n",
			k.file("home/templates"), k.file("home/templates/hooks"), evil, evil, "file://"))
	}
	for name, url := range map[string]string{"file": s.url(), "http": s.serve()} {
		t.Run(name, func(t *testing.T) {
			k := newTask(t, url, first, nil)
			home(k)
			if r := k.run().must(t); r.stdout != "first\n" {
				t.Errorf("%q, %q", r.stdout, r.stderr)
			}
		})
	}
	ext := "ext::sh -c touch% " + evil
	for name, test := range map[string]struct{ url, commit, branch, protocols string }{
		"another protocol":     {s.url(), first, "main", "https"},
		"a helper":             {ext, first, "main", "https:ext"},
		"a helper's URL":       {"ext://sh", first, "main", "https"},
		"an option":            {"--upload-pack=touch " + evil, first, "main", "file"},
		"a path":               {s.bare, first, "main", "file"},
		"no URL":               {"", first, "main", "file"},
		"two lines":            {s.url() + "\nx", first, "main", "file"},
		"a branch as commit":   {s.url(), "main", "main", "file"},
		"an option as commit":  {s.url(), "--upload-pack=touch " + evil, "main", "file"},
		"a short commit":       {s.url(), first[:12], "main", "file"},
		"an upper-case commit": {s.url(), strings.ToUpper(first), "main", "file"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTask(t, test.url, test.commit, nil, "NOMAD_META_BRANCH="+test.branch, "BUILDER_PROTOCOLS="+test.protocols)
			home(k)
			if r := k.run(); r.code != 64 || r.stdout != "" || !strings.HasPrefix(r.stderr, "builder: ") {
				t.Errorf("exit code %d, %q, %q", r.code, r.stdout, r.stderr)
			}
		})
	}
	t.Run("an option as branch", func(t *testing.T) {
		k := newTask(t, s.serve(), first, nil, "NOMAD_META_BRANCH=--upload-pack=touch "+evil)
		if r := k.run(); r.code != 66 || r.stdout != "" {
			t.Errorf("exit code %d, %q, %q", r.code, r.stdout, r.stderr)
		}
	})
	if _, err := os.Lstat(evil); err == nil {
		t.Error("something was run")
	}
}

// TestBuilderHangs: a server that takes the question and never answers costs no more
// than its time, and a signal ends the wait for it.
func TestBuilderHangs(t *testing.T) {
	asked := make(chan struct{}, 10)
	never := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-never:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(never)
	commit := strings.Repeat("0a", 20)
	r := newTask(t, server.URL+"/app.git", commit, nil, "BUILDER_CLONE_TIMEOUT=1").run()
	if r.code != 66 || !strings.HasSuffix(r.stderr, "builder: getting the commit took longer than 1 seconds\n") {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
	for len(asked) > 0 {
		<-asked
	}
	p := newTask(t, server.URL+"/app.git", commit, nil).start()
	select {
	case <-asked:
	case <-p.done:
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(t); code != 143 {
		t.Errorf("exit code %d:\n%s", code, p.out)
	}
}

// TestBuilderStops: a signal is the build's, and no session follows.
func TestBuilderStops(t *testing.T) {
	// Its parent is timeout, which must have got as far as to wait for it.
	s := newSources(t, "#!/bin/sh\ntrap 'echo told; exit 9' TERM\nuntil grep -q 'State:.S' /proc/$PPID/status; do :; done\necho begun\nwhile :; do sleep 0.1; done")
	commit := s.commit()
	dispatch := takeReports(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		k := newTask(t, s.url(), commit, envelope("x", "DISPATCH_DEBUG_URL="+dispatch.url, "DISPATCH_DEBUG_TOKEN=t"), "NOMAD_META_DISPATCH_ENVELOPE=1")
		p := k.start()
		p.out.Await(t, "begun", 1)
		p.signal(signal)
		if code := p.wait(t); code != 9 || !strings.Contains(p.out.String(), "told") || len(dispatch.all()) != 0 {
			t.Errorf("%v: exit code %d:\n%s%+v", signal, code, p.out, dispatch.all())
		}
		if _, err := os.Lstat(k.file("secrets/albatros/secret.txt")); err == nil {
			t.Error("the secrets are still there")
		}
	}
}

// TestBuilderSession: a build that fails tells dispatch so before anything else,
// then lets in those whom dispatch names and who have keys, tells when that is
// over, and ends as the build did.
func TestBuilderSession(t *testing.T) {
	server := startServer(t)
	id := newIdentity(t)
	forge := startForge(t)
	forge.has("alice", id)
	forge.has("bob") // has none, and carol is not there
	s := newSources(t, "#!/bin/sh\necho failing\nexit 42")
	commit := s.commit()
	const token = "dG9rZW4tb2YtdGhlLXRlc3Q"
	// Whatever is started with a token in its arguments is seen.
	spy := t.TempDir()
	for _, name := range []string{"curl", "git", "sed", "converge-agent"} {
		real := name
		if name == "converge-agent" {
			real = tool("agent")
		} else {
			real = strings.TrimSpace(shell(t, nil, "command -v "+name).stdout)
		}
		writeText(t, filepath.Join(spy, name), "#!/bin/sh\ncase \"$*\" in *"+token+"*) echo SEEN >&2 ;; esac\nexec "+real+" \"$@\"")
	}
	run := func(dispatch *reports, lines []string, env ...string) *task {
		lines = append([]string{"DISPATCH_DEBUG_URL=" + dispatch.url, "DISPATCH_DEBUG_TOKEN=" + token, "DISPATCH_DEBUG_SERVER=" + server.ws("")}, lines...)
		return newTask(t, s.url(), commit, envelope("SECRET=1\n", lines...), append([]string{
			"NOMAD_META_DISPATCH_ENVELOPE=1", "PATH=" + spy + ":" + os.Getenv("PATH"), "CURL_CA_BUNDLE=" + forge.ca, "CONVERGE_AGENT_CA=" + forge.ca,
			"CONVERGE_AGENT_WSPROXY=" + tool("wsproxy"), "CONVERGE_AGENT_SSH_OPTION=-i" + id.file + "\n-oIdentitiesOnly=yes\n-Fnone\n-oBatchMode=yes", "SHELL=/bin/bash",
		}, env...)...)
	}
	people := []string{"CONVERGE_AGENT_GITEA_URL=" + forge.url, "CONVERGE_AGENT_GITEA_USER=bob", "CONVERGE_AGENT_GITEA_USER=alice", "CONVERGE_AGENT_GITEA_USER=carol"}

	t.Run("ssh gets in", func(t *testing.T) {
		dispatch := takeReports(t)
		k := run(dispatch, append(people, "DISPATCH_DEBUG_FOR=20m"))
		p := k.start()
		for range 2 {
			select {
			case <-dispatch.more:
			case <-p.done:
				t.Fatalf("it ended:\n%s", p.out)
			}
		}
		open := dispatch.all()[1]
		r := shell(t, strings.NewReader("cat \"$SECRET_PATH\"; echo \"$COMMIT\"; pwd; ls -A; env | grep -c CONVERGE_AGENT_; exit 0\n"), open.Line+" -T").must(t)
		for _, want := range []string{"SECRET=1\n", commit, k.file("local/source"), ".albatros"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("%q is not in\n%s", want, r.stdout)
			}
		}
		if code := p.wait(t); code != 42 || strings.Contains(p.out.String(), "SEEN") || strings.Contains(p.out.String(), token) {
			t.Errorf("exit code %d:\n%s", code, p.out)
		}
		var states []string
		for _, got := range dispatch.all() {
			states = append(states, got.State)
			if got.path != "/builds/builder/dispatch-1678866433-15aad86a/debug" || got.token != "Bearer "+token || got.Exit != 42 {
				t.Errorf("reported %+v", got)
			}
		}
		if !slices.Equal(states, []string{"failed", "open", "closed"}) || !strings.HasPrefix(open.Line, "ssh ") || !strings.HasSuffix(open.Until, "Z") {
			t.Errorf("reported %+v", dispatch.all())
		}
	})
	// What goes wrong with the session never changes how the build ends.
	for name, test := range map[string]struct {
		lines  []string
		env    []string
		refuse bool
		says   string
		states []string
	}{
		"nobody has a key":  {lines: people[:2], says: "nobody who may log in has a key", states: []string{"failed"}},
		"no https":          {lines: []string{"CONVERGE_AGENT_GITEA_URL=http://git.example.org", people[2]}, says: "debug session: keys are not taken from http://git.example.org, which is no https address", states: []string{"failed"}},
		"one key of two":    {lines: append([]string{"CONVERGE_AGENT_AUTHORIZED_KEY=" + id.public, "DISPATCH_DEBUG_FOR=1s"}, people[:2]...), says: "nobody logged in in time", states: []string{"failed", "open", "closed"}},
		"nobody is named":   {says: "nobody who may log in has a key", states: []string{"failed"}},
		"a password":        {lines: []string{"CONVERGE_AGENT_PASSWORD=true"}, env: []string{"CONVERGE_AGENT_PASSWORD=true"}, says: "nobody who may log in has a key", states: []string{"failed"}},
		"strange names":     {lines: []string{people[0], "CONVERGE_AGENT_GITEA_USER=../alice", "CONVERGE_AGENT_GITEA_USER=$(touch x)"}, says: "nobody who may log in has a key", states: []string{"failed"}},
		"no server":         {lines: append([]string{"DISPATCH_DEBUG_SERVER="}, people...), says: "debug session: none, since dispatch names no server", states: []string{"failed"}},
		"the server's away": {lines: people, env: []string{"CONVERGE_AGENT_CONNECT_TIMEOUT=0", "CONVERGE_AGENT_HEADER=@/nowhere"}, says: "/nowhere", states: []string{"failed", "closed"}},
		"dispatch refuses":  {lines: people, refuse: true, env: []string{"CONVERGE_AGENT_FIRST_CONNECT_TIMEOUT=1s", "CONVERGE_AGENT_EXPIRY=1s"}, says: "dispatch was not told that the build has failed"},
	} {
		t.Run(name, func(t *testing.T) {
			dispatch := takeReports(t)
			dispatch.refuse = test.refuse
			lines := test.lines
			if test.refuse {
				lines = append(lines, "DISPATCH_DEBUG_FOR=1s")
			}
			k := run(dispatch, lines, test.env...)
			r := k.run()
			if r.code != 42 || !strings.Contains(r.stderr, test.says) || strings.Contains(strings.ToLower(r.stderr), "password") || strings.Contains(r.stderr, "SEEN") {
				t.Errorf("exit code %d:\n%s", r.code, r.stderr)
			}
			var states []string
			for _, got := range dispatch.all() {
				states = append(states, got.State)
			}
			if !slices.Equal(states, test.states) {
				t.Errorf("reported %q, want %q:\n%s", states, test.states, r.stderr)
			}
		})
	}
	t.Run("the server's agent", func(t *testing.T) {
		docs := downloads(t)
		server := startServer(t, "--downloads", docs)
		dispatch := takeReports(t)
		k := newTask(t, s.url(), commit, envelope("", "DISPATCH_DEBUG_URL="+dispatch.url, "DISPATCH_DEBUG_TOKEN="+token, "DISPATCH_DEBUG_SERVER="+server.ws(""),
			"DISPATCH_DEBUG_FOR=1s", "CONVERGE_AGENT_AUTHORIZED_KEY="+id.public), "NOMAD_META_DISPATCH_ENVELOPE=1", "PATH=/usr/bin:/bin")
		k.small = true
		r := k.run()
		if all := dispatch.all(); r.code != 42 || len(all) != 3 || all[2].State != "closed" {
			t.Errorf("exit code %d, %+v:\n%s", r.code, all, r.stderr)
		}
	})
}

// TestBuilderWaits: a dispatch that starts again while a build fails is told once it
// is there.
func TestBuilderWaits(t *testing.T) {
	s := newSources(t, "#!/bin/sh\nexit 42")
	// The port is taken, and nobody listens.
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(socket), "dispatch")
	defer file.Close()
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	spy := t.TempDir() // curl does not say by itself that it tries again
	writeText(t, filepath.Join(spy, "curl"), "#!/bin/sh\nexec "+strings.TrimSpace(shell(t, nil, "command -v curl").stdout)+` "$@" --verbose`)
	k := newTask(t, s.url(), s.commit(), envelope("", fmt.Sprintf("DISPATCH_DEBUG_URL=http://127.0.0.1:%d/builds/", name.(*syscall.SockaddrInet4).Port), "DISPATCH_DEBUG_TOKEN=t"),
		"NOMAD_META_DISPATCH_ENVELOPE=1", "PATH="+spy+":"+os.Getenv("PATH"))
	p := k.start()
	p.out.Await(t, "onnection refused", 1)
	if err := syscall.Listen(socket, 16); err != nil {
		t.Fatal(err)
	}
	listener, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	dispatch := takeReports(t, listener)
	if code := p.wait(t); code != 42 {
		t.Errorf("exit code %d", code)
	}
	if all := dispatch.all(); len(all) != 1 || all[0].State != "failed" {
		t.Errorf("reported %+v:\n%s", all, p.out)
	}
}

// TestBuilderScripts: Nomad's templates leave the scripts as they are.
func TestBuilderScripts(t *testing.T) {
	for _, name := range []string{"build.sh", "nixcache.sh"} {
		text, err := os.ReadFile(filepath.Join("..", "deploy", "nomad", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, delimiter := range []string{"[[[[", "]]]]"} {
			if bytes.Contains(text, []byte(delimiter)) {
				t.Errorf("%s has %s, which Nomad's templates would take for theirs", name, delimiter)
			}
		}
	}
}
