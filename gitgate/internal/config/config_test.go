package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/webhook"
)

// TestReferenceSample reads the reference's sample file, only its folders
// changed, in its three formats: they mean the same, and nothing is odd.
func TestReferenceSample(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // its folders are no absolute ones there
	}
	repo := func(n, path, phrase string) *Repo {
		return &Repo{
			Name: path, URL: "git@github.com:ns/repo-" + n + ".git", Identity: webhook.Remote{Host: "github.com", Path: "ns/repo-" + n},
			Path: path, Directory: "/srv/repo-" + n, Label: "master", Remote: "origin", Trigger: "/srv/trigger-" + n,
			Secrets: []string{"superSecret-repo-" + n}, SSHKey: "/srv/key-" + n, SSHPassPhrase: phrase,
			Timeout: 10 * time.Minute, Keep: 2, ExecTimeout: time.Minute,
		}
	}
	want := &Config{
		Port: 5555, RetryCount: 10, RetryDelay: time.Second, Threads: 5, Initialise: true,
		Logging: Logging{Output: "stdout", Timestamp: true}, Timeout: 10 * time.Minute, MaxBody: webhook.MaxBody, ReplayWindow: time.Hour,
		Repos: []*Repo{repo("1", "/gwg/repo-1", "pphrase-1"), repo("2", "/gwga", "abc")},
	}
	for _, ending := range []string{"yaml", "json", "toml"} {
		name := filepath.Join("testdata", "gwg", "config."+ending)
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c, warnings, err := Parse(text, "config."+ending, false, nil)
		if err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v, %v", name, err, warnings)
			continue
		}
		if !c.holdsSecret {
			t.Errorf("%s: its secrets are not seen", name)
		}
		c.File, c.holdsSecret = "", false
		for _, r := range c.Repos {
			if r.Line == 0 {
				t.Errorf("%s: no line", name)
			}
			r.Line = 0
		}
		if !reflect.DeepEqual(c, want) {
			t.Errorf("%s is\n%+v\n%+v", name, c, c.Repos[0])
		}
	}
}

// one is a file with a repository, to which lines are added.
func one(top string, lines ...string) string {
	text := top + "\nrepos:\n  - url: https://h.example/a/b\n    path: /p\n    directory: /srv/p\n"
	for _, line := range lines {
		text += "    " + line + "\n"
	}
	return text
}

func TestMistakes(t *testing.T) {
	const secret = "secret: s"
	for name, test := range map[string]struct {
		text, says string
		strict     bool
	}{
		"no secret":            {one(""), "add `secret:` as it is at the forge, or `insecure: true`", false},
		"blank secret":         {one("", `secret: "  "`), "/p has no secret", false},
		"empty secret":         {one("", "secret:"), "/p has no secret", false},
		"secret and insecure":  {one("", secret, "insecure: true"), "keep one of them", false},
		"unknown, strict":      {one("", secret, "labeltipe: tag"), `line 7: the key "labeltipe" is not known`, true},
		"unknown top, strict":  {one("retrycount: 3", secret), "line 1: the key \"retrycount\" is not known: write retry_count", true},
		"twice":                {one("port: 1\nport: 2", secret), "line 2: port is there twice: the first time in line 1", false},
		"twice, other case":    {one("", secret, "Secret: t"), "line 7: Secret is there twice: the first time in line 6", false},
		"threads":              {one("threads: 0", secret), "line 1: threads must be a number from 1", false},
		"port":                 {one("port: 65536", secret), "line 1: port must be a number", false},
		"delay":                {one("retry_delay: -1", secret), "line 1: retry_delay must be a duration", false},
		"branch and label":     {one("", secret, "branch: a", "label: b"), `branch "a" and label "b"`, false},
		"branch and tag":       {one("", secret, "branch: a", "labelType: tag"), "keep one of them", false},
		"tag without label":    {one("", secret, "labelType: tag"), "say which tag", false},
		"label":                {one("", secret, "label: a..b"), "no name that git gives", false},
		"label as option":      {one("", secret, "label: -x"), "no name that git gives", false},
		"label with colon":     {one("", secret, "label: 'a:b'"), "no name that git gives", false},
		"remote":               {one("", secret, "remote: --upload-pack=x"), "no name of one", false},
		"helper":               {strings.Replace(one("", secret), "https://h.example/a/b", "'ext::sh -c x'", 1), "the url of /p cannot be used", false},
		"password over http":   {strings.Replace(one("", secret), "https://h", "http://u:p4ss@h", 1), "would go over plain http", false},
		"password over ssh":    {strings.Replace(one("", secret), "https://h", "ssh://u:p4ss@h", 1), "with ssh there is sshPrivKey", false},
		"no slash":             {strings.Replace(one("", secret), "path: /p", "path: p", 1), "begin it with /", false},
		"root":                 {strings.Replace(one("", secret), "/srv/p", "/", 1), "the root of the file system", false},
		"no url":               {"repos:\n- path: /p\n  directory: /d\n  secret: s\n", "line 2: the repository has no url", false},
		"no repos":             {"port: 1\n", "there is no repository", false},
		"empty":                {"", "there is no repository", false},
		"a list":               {"- a\n", "must be lines of KEY: VALUE", false},
		"no YAML":              {"a: [\n", "line", false},
		"publish":              {one("", secret, "publish: copy"), "line 7: publish must be symlink", false},
		"notify":               {one("", secret, "notify: slack+http://h.example/x"), "https URL", false},
		"same path":            {one("", secret) + "  - {url: 'https://h/c', path: /p/, directory: /srv/q, secret: s}\n", "the path /p is that of the repository in line 3", false},
		"same directory":       {one("", secret) + "  - {url: 'https://h/c', path: /q, directory: /srv/./p, secret: s}\n", "the directory /srv/p is that", false},
		"inside clean":         {one("", secret, "clean: true") + "  - {url: 'https://h/c', path: /q, directory: /srv/p/q, secret: s}\n", "line 8: the directory /srv/pq is inside", false},
		"inside publish":       {"repos:\n- {url: 'https://h/c', path: /q, directory: /srv/x/q/r, secret: s}\n- {url: 'https://h/d', path: /d, directory: /srv/x, secret: s, publish: symlink}\n", "line 2: the directory /srv/x/q/r is inside", false},
		"star":                 {one("", "secret: *p4ss"), "line 6: a value begins with *", false},
		"port in listen":       {one("listen: 127.0.0.1:8080", secret), "give the port as port", false},
		"metrics at webhooks":  {one("listen: 127.0.0.1\nmetrics_listen: 127.0.0.1:5555", secret), "give it another port", false},
		"metrics at every one": {one("metrics_listen: 127.0.0.1:5555", secret), "give it another port", false},
		"tls":                  {one("tls_cert: a", secret), "go together", false},
		"alias bomb":           {"a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n", "", false},
		"two documents":        {one("", secret) + "---\na: b\n", "second document", false},
		"value for a mapping":  {one("logging: text", secret), "line 1: the key \"logging\" is not known", true},
		"a mapping as a value": {one("port: {a: b}", secret), "line 1: port must be one value", false},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := Parse([]byte(test.text), "config.yaml", test.strict, nil)
			if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "/p/", "/p"), test.says) {
				t.Errorf("%v, want %q\n%+v", err, test.says, c)
			}
			if err != nil && strings.Contains(err.Error(), "p4ss") {
				t.Errorf("it tells a secret: %v", err)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for name, test := range map[string]struct{ text, says string }{
		"unknown key":     {one("", "secret: s", "labeltipe: tag"), `line 7: the key "labeltipe" is not known, and does nothing`},
		"unknown nested":  {one("logging: {colour: red}", "secret: s"), `line 1: the key "logging.colour" is not known`},
		"labelType":       {one("", "secret: s", "label: x", "labelType: branches"), `line 3: the labelType of /p is "branches": it is taken for branch`},
		"blank labelType": {one("", "secret: s", "label: x", "labelType:"), `it is taken for branch`},
		"insecure":        {one("", "insecure: true"), "anybody who reaches /p"},
		"level":           {one("logging: {level: chatty}", "secret: s"), "info is taken"},
	} {
		c, warnings, err := Parse([]byte(test.text), "config.yaml", false, nil)
		if err != nil || !strings.Contains(fmt.Sprint(warnings), test.says) || c.Repos[0].Tag {
			t.Errorf("%s: %v, %v", name, warnings, err)
		}
	}
}

func TestLines(t *testing.T) {
	for ending, text := range map[string]string{
		"json": "{\n  \"port\": 1,\n  \"repos\": [\n    {\"url\": \"https://h/a\", \"path\": \"/p\",\n \"directory\": \"/d\", \"secret\": \"s\",\n \"bad\": 1}\n]}",
		"toml": "port = 1\n\n[[repos]]\nurl = 'https://h/a'\npath = '/p'\nbad = 1\ndirectory = '/d'\nsecret = 's'\n",
		"yaml": "port: 1\n\n\nrepos:\n- {url: 'https://h/a', path: /p, directory: /d, secret: s,\n  bad: 1}\n",
	} {
		_, _, err := Parse([]byte(text), "config."+ending, true, nil)
		if err == nil || !strings.Contains(err.Error(), `line 6: the key "bad"`) {
			t.Errorf("%s: %v", ending, err)
		}
	}
	for ending, text := range map[string]string{"json": "{\n\n\"a\": }", "toml": "a = 1\n\nb = \n", "yaml": "a: 1\n\nb: [\n"} {
		if _, _, err := Parse([]byte(text), "config."+ending, true, nil); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v", ending, err)
		}
	}
}

func TestValues(t *testing.T) {
	text := one("PORT: '80'\nretry_delay: 2m\ninitialise: no\nlogging: {format: fancy, timestamp: off, level: WARN}", "secret: [a, 0123]", "labelType: tag", "label: v1", "poll: 90", "exec: [make, deploy]", "lfs: yes", "notify: json+https://h/x")
	c, _, err := Parse([]byte(text), "config.yaml", true, []Override{{"port", "81", "the command line"}, {"threads", "7", "a variable"}})
	if err != nil {
		t.Fatal(err)
	}
	r := c.Repos[0]
	if c.Port != 81 || c.Threads != 7 || c.RetryDelay != 2*time.Minute || c.Initialise || !c.Logging.JSON || c.Logging.Timestamp || c.Logging.Level.String() != "WARN" {
		t.Errorf("%+v", c)
	}
	if !reflect.DeepEqual(r.Secrets, []string{"a", "0123"}) || r.Ref() != "refs/tags/v1" || r.Poll != 90*time.Second || len(r.Exec) != 2 || !r.LFS || len(r.Notify) != 1 {
		t.Errorf("%+v", r)
	}
	if _, _, err := Parse([]byte(one("", "secret: s")), "config.yaml", true, []Override{{"threads", "0", "the command line"}}); err == nil || !strings.Contains(err.Error(), "threads of the command line must be") {
		t.Error(err)
	}
	merged := "x: &x {secret: s, label: main}\nrepos:\n- <<: *x\n  url: https://u:p4ss@h/a\n  path: /a\n  directory: /srv/a\n  label: other\n"
	c, _, err = Parse([]byte(merged), "config.yaml", false, nil)
	if err != nil || c.Repos[0].Label != "other" || c.Repos[0].Secrets[0] != "s" || c.Repos[0].URL != "https://h/a" || c.Repos[0].User != "u" || c.Repos[0].Password != "p4ss" {
		t.Errorf("%v, %+v", err, c)
	}
}

// TestMergeTwice: what was merged into what is merged may be replaced, and its
// own values are stronger than those that it took.
func TestMergeTwice(t *testing.T) {
	text := "repos:\n- &a {url: 'https://h/a', path: /a, directory: /srv/a, secret: s, label: one, name: a}\n" +
		"- &b\n  <<: *a\n  path: /b\n  directory: /srv/b\n  label: two\n  name: b\n" +
		"- <<: *b\n  path: /c\n  directory: /srv/c\n  name: c\n  secret: t\n"
	c, _, err := Parse([]byte(text), "config.yaml", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Repos[2]; r.Path != "/c" || r.Label != "two" || r.URL != "https://h/a" || r.Secrets[0] != "t" {
		t.Errorf("%+v", r)
	}
}

// TestNested: a folder inside one whose updates leave others' files is fine.
func TestNested(t *testing.T) {
	text := one("", "secret: s") + "  - {url: 'https://h/c', path: /q, directory: /srv/p/q, secret: s}\n"
	c, _, err := Parse([]byte(text), "config.yaml", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Repos[0].Inner; !slices.Equal(got, []string{c.Repos[1].Directory}) { // which updates spare
		t.Error(got)
	}
	text = one("", "secret: s", "clean: true") + "  - {url: 'https://h/c', path: /q, directory: /srv/pq, secret: s}\n"
	if _, _, err := Parse([]byte(text), "config.yaml", true, nil); err != nil {
		t.Error(err)
	}
	// And its parent need not be there before the one around it is.
	dir := t.TempDir()
	c = &Config{Repos: []*Repo{
		{Line: 1, Directory: filepath.Join(dir, "site", "plugins", "inner")}, {Line: 2, Directory: filepath.Join(dir, "site")}, {Line: 3, Directory: filepath.Join(dir, "site2", "inner")},
	}}
	if wrong := c.CheckFiles(); len(wrong) != 1 || !strings.HasPrefix(wrong[0].Error(), "line 3: the folder of directory is not there") {
		t.Error(wrong)
	}
}

// TestLinks: one folder has one repository, by whatever symbolic links it is
// reached, and nothing is in what an update replaces.
func TestLinks(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // not everybody may make links there
	}
	dir := t.TempDir()
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "real", "site"), 0o700), os.Symlink("real", filepath.Join(dir, "alias")),
		os.Symlink("real/site", filepath.Join(dir, "link")),
		os.MkdirAll(filepath.Join(dir, ".www.gitgate", "trees", "1"), 0o700), os.Symlink(".www.gitgate/trees/1", filepath.Join(dir, "www")),
	); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ one, more, two, says string }{
		{"real/site", "", "alias/site", "is that of the repository in line 2"},
		{"alias/new", "", "real/new", "is that of the repository in line 2"},
		{"real/site", "", "link", "is that of the repository in line 2"},
		{"real/site", "", "alias/other", ""},
		{"real/site", "", "alias/site/inner", ""},
		{"real/site", "clean: true", "alias/site/inner", "is inside"},
		{"alias/site", "clean: true", "link/new/inner", "is inside"},
		{"real/new", "publish: symlink", "alias/new/inner", "is inside"},
		{"www", "publish: symlink", "www/inner", "is inside"},
		{"www", "publish: symlink", "www2", ""},
	} {
		text := fmt.Sprintf("repos:\n- {url: 'https://h/a', path: /a, directory: %q, secret: s, %s}\n- {url: 'https://h/b', path: /b, directory: %q, secret: s}\n",
			filepath.Join(dir, test.one), test.more, filepath.Join(dir, test.two))
		if _, _, err := Parse([]byte(text), "config.yaml", true, nil); (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestFind(t *testing.T) {
	one, two, three := t.TempDir(), t.TempDir(), t.TempDir()
	folders := []string{one, two, three}
	var none *NotFoundError
	if _, _, err := Find(folders); !errors.As(err, &none) || !strings.Contains(err.Error(), two) || !strings.Contains(err.Error(), three) {
		t.Error(err)
	}
	put := func(name ...string) string {
		path := filepath.Join(name...)
		if err := os.WriteFile(path, []byte("repos: []"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	last := put(three, "config.toml")
	if path, strict, err := Find(folders); path != last || strict || err != nil {
		t.Error(path, strict, err)
	}
	first := put(one, "config.json")
	if path, strict, err := Find(folders); path != first || !strict || err != nil {
		t.Error(path, strict, err)
	}
	put(one, "config.yaml")
	if _, _, err := Find(folders); err == nil || !strings.Contains(err.Error(), "more than one configuration") {
		t.Error(err)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	secret := filepath.Join(dir, "secret")
	text := one("ca_file: "+filepath.Join(dir, "ca")+"\nlogging: {output: "+filepath.Join(dir, "no", "log")+"}", "secretFile: "+secret, "sshPrivKey: "+filepath.Join(dir, "none"), "trigger: "+filepath.Join(dir, "no", "trigger"), "exec: no-such-program x")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(file, true, nil); err == nil || !strings.Contains(err.Error(), "cannot read secretFile") {
		t.Error(err)
	}
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, warnings, err := Load(file, true, nil)
	if err != nil || c.Repos[0].Secrets[0] != "s3cret" {
		t.Fatal(err)
	}
	if len(warnings) > 0 || c.Sum != Digest([]byte(text)) {
		t.Errorf("its secret is in another file: %v, %s", warnings, c.Sum)
	}
	wrong := fmt.Sprint(c.CheckFiles())
	if strings.Contains(wrong, "secretFile") {
		t.Error(wrong)
	}
	for _, want := range []string{"sshPrivKey cannot be read", "caFile cannot be read", "the folder of trigger", "exec cannot be run", "such as [sh, -c", "the folder of logging.output"} {
		if !strings.Contains(wrong, want) {
			t.Errorf("%s lacks %q", wrong, want)
		}
	}
	if runtime.GOOS == "windows" {
		return // files have no such modes
	}
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	if wrong := fmt.Sprint(c.CheckFiles()); !strings.Contains(wrong, "secretFile "+secret+" may be read by every user") {
		t.Error(wrong)
	}
	for name, text := range map[string]string{
		"secret": one("", "secret: s"), "notify": one("", "secretFile: "+secret, "notify: slack+https://h/x"),
		"notify of all": one("notify: [slack+https://h/x]", "secretFile: "+secret), "phrase": one("", "insecure: true", "sshPassPhrase: p"),
		"password": strings.Replace(one("", "secretFile: "+secret), "https://", "https://u:p@", 1),
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, warnings, err := Load(file, true, nil); err != nil || !strings.Contains(fmt.Sprint(warnings), ReadableByOthers) {
			t.Errorf("%s: %v, %v", name, warnings, err)
		}
	}
}

// TestExecInside: a command of the repository's own is looked for where it runs,
// once that is there.
func TestExecInside(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // files have no such modes
	}
	dir := t.TempDir()
	tree, link := filepath.Join(dir, "tree"), filepath.Join(dir, "link")
	c := &Config{Repos: []*Repo{{Directory: link, Exec: []string{"./deploy.sh"}}}}
	check := func(good bool) {
		t.Helper()
		if wrong := c.CheckFiles(); len(wrong) == 0 != good {
			t.Error(wrong)
		}
	}
	check(true)
	if err := errors.Join(os.Mkdir(tree, 0o700), os.Symlink("tree", link)); err != nil {
		t.Fatal(err)
	}
	check(true)
	if err := os.WriteFile(filepath.Join(tree, ".git"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check(false)
	if err := os.WriteFile(filepath.Join(tree, "deploy.sh"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	check(true)
	if err := os.Chmod(filepath.Join(tree, "deploy.sh"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(false)
}

func FuzzParse(f *testing.F) {
	for _, ending := range []string{"yaml", "json", "toml"} {
		text, err := os.ReadFile(filepath.Join("testdata", "gwg", "config."+ending))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, ending)
	}
	f.Add([]byte("a: &a [*a]"), "yaml")
	f.Add([]byte("[[a]]\n[a.b]\nc={d.e=[1,{f=2}]}"), "toml")
	f.Fuzz(func(t *testing.T, text []byte, ending string) {
		if strings.Contains(string(text), "File") {
			return // it must read no file of this machine
		}
		c, _, err := Parse(text, "config."+ending, false, nil)
		if err != nil {
			return
		}
		for _, r := range c.Repos {
			if len(r.Secrets) == 0 && !r.Insecure || r.Identity.Path == "" || !strings.HasPrefix(r.Path, "/") || !filepath.IsAbs(r.Directory) || !goodRef(r.Ref()) {
				t.Errorf("%+v", r)
			}
		}
	})
}

// TestKeyFile: a key that ssh could not use is told before.
func TestKeyFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Config{Repos: []*Repo{{Directory: filepath.Join(t.TempDir(), "p"), SSHKey: name}}}
	if wrong := fmt.Sprint(c.CheckFiles()); !strings.Contains(wrong, "is a public key") {
		t.Error(wrong)
	}
}
