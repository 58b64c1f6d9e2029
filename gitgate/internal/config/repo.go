package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/converge/pkg/webhook"
)

// raw is a repository as the file has it.
type raw struct {
	Repo
	label, branch, labelType string
	hasLabel, hasBranch      bool
	secretFile, phraseFile   string
	passwordFile             string
	others                   []string
}

// repoKeys are the keys of a repository: the reference's in its own spelling.
var repoKeys = []struct {
	name string
	list bool
	set  func(*raw, []string) error
}{
	{"url", false, text(func(r *raw) *string { return &r.URL })},
	{"path", false, text(func(r *raw) *string { return &r.Path })},
	{"directory", false, text(func(r *raw) *string { return &r.Directory })},
	{"label", false, func(r *raw, v []string) error { r.label, r.hasLabel = v[0], v[0] != ""; return nil }},
	{"branch", false, func(r *raw, v []string) error { r.branch, r.hasBranch = v[0], v[0] != ""; return nil }},
	{"labelType", false, text(func(r *raw) *string { return &r.labelType })},
	{"remote", false, text(func(r *raw) *string { return &r.Remote })},
	{"trigger", false, text(func(r *raw) *string { return &r.Trigger })},
	{"secret", true, func(r *raw, v []string) error { r.Secrets = v; return nil }},
	{"sshPrivKey", false, text(func(r *raw) *string { return &r.SSHKey })},
	{"sshPassPhrase", false, text(func(r *raw) *string { return &r.SSHPassPhrase })},

	{"name", false, text(func(r *raw) *string { return &r.Name })},
	{"insecure", false, flag(func(r *raw) *bool { return &r.Insecure })},
	{"secretFile", false, text(func(r *raw) *string { return &r.secretFile })},
	{"sshPassPhraseFile", false, text(func(r *raw) *string { return &r.phraseFile })},
	{"knownHosts", false, text(func(r *raw) *string { return &r.KnownHosts })},
	{"caFile", false, text(func(r *raw) *string { return &r.CAFile })},
	{"user", false, text(func(r *raw) *string { return &r.User })},
	{"passwordFile", false, text(func(r *raw) *string { return &r.passwordFile })},
	{"payloadURL", true, func(r *raw, v []string) error { r.others = v; return nil }},
	{"allow_sha1", false, flag(func(r *raw) *bool { return &r.AllowSHA1 })},
	{"poll", false, span(func(r *raw) *time.Duration { return &r.Poll }, 0)},
	{"timeout", false, span(func(r *raw) *time.Duration { return &r.Timeout }, 1)},
	{"publish", false, func(r *raw, v []string) error {
		switch p := Publish(v[0]); p {
		case InPlace, Symlink:
			r.Publish = p
			return nil
		}
		return errors.New("must be symlink, or left out")
	}},
	{"keep", false, count(func(r *raw) *int { return &r.Keep }, 0, 1000)},
	{"clean", false, flag(func(r *raw) *bool { return &r.Clean })},
	{"submodules", false, flag(func(r *raw) *bool { return &r.Submodules })},
	{"lfs", false, flag(func(r *raw) *bool { return &r.LFS })},
	{"gc", false, flag(func(r *raw) *bool { return &r.GC })},
	{"depth", false, count(func(r *raw) *int { return &r.Depth }, 0, maxSeconds)},
	{"exec", true, func(r *raw, v []string) error { r.Exec = v; return nil }},
	{"execTimeout", false, span(func(r *raw) *time.Duration { return &r.ExecTimeout }, 1)},
	{"notify", true, func(r *raw, v []string) error {
		for _, s := range v {
			if err := checkNotify(s); err != nil {
				return err
			}
		}
		r.Notify = v
		return nil
	}},
}

func text(at func(*raw) *string) func(*raw, []string) error {
	return func(r *raw, v []string) error { *at(r) = v[0]; return nil }
}

func flag(at func(*raw) *bool) func(*raw, []string) error {
	return func(r *raw, v []string) error {
		b, err := parseBool(v[0])
		*at(r) = b
		return err
	}
}

func count(at func(*raw) *int, least, most int) func(*raw, []string) error {
	return func(r *raw, v []string) error {
		n, err := strconv.Atoi(v[0])
		if err != nil || n < least || n > most {
			return fmt.Errorf("must be a number from %d to %d", least, most)
		}
		*at(r) = n
		return nil
	}
}

func span(at func(*raw) *time.Duration, least time.Duration) func(*raw, []string) error {
	return func(r *raw, v []string) error {
		d, err := parseDuration(v[0])
		if err == nil && d < least {
			err = errors.New("must be longer than 0")
		}
		*at(r) = d
		return err
	}
}

// Defaults of a repository.
const (
	defaultRemote      = "origin"
	defaultBranch      = "master"
	defaultKeep        = 2
	defaultExecTimeout = time.Minute
)

func (r *reader) readRepos(list *node) {
	if list == nil || list.kind == null || list.kind == sequence && len(list.list) == 0 {
		r.wrong(0, "there is no repository: add one under repos")
		return
	}
	if list.kind != sequence {
		r.wrong(list.line, "repos must be a list")
		return
	}
	for _, n := range list.list {
		if n.kind != mapping {
			r.wrong(n.line, "a repository must be lines of KEY: VALUE")
			continue
		}
		if repo := r.readRepo(n); repo != nil {
			r.config.Repos = append(r.config.Repos, repo)
		}
	}
}

// readRepo reads one. It is nil after a mistake.
func (r *reader) readRepo(n *node) *Repo {
	before := len(r.errs)
	c := r.config
	w := &raw{Repo: Repo{
		Line: n.line, Remote: defaultRemote, AllowSHA1: c.AllowSHA1, Poll: c.Poll, Timeout: c.Timeout,
		KnownHosts: c.KnownHosts, CAFile: c.CAFile, Keep: defaultKeep, ExecTimeout: defaultExecTimeout,
	}}
	var known []string
	for _, k := range repoKeys {
		known = append(known, k.name)
	}
	r.once(n)
	for _, e := range n.keys {
		line := abs(e.line)
		at := slices.IndexFunc(repoKeys, func(k struct {
			name string
			list bool
			set  func(*raw, []string) error
		}) bool {
			return strings.EqualFold(k.name, e.name)
		})
		if at < 0 {
			r.unknown(line, e.name, known)
			continue
		}
		k := repoKeys[at]
		values, ok := r.texts(k.name, e, k.list)
		if !ok || len(values) == 0 {
			continue
		}
		if err := k.set(w, values); err != nil {
			r.wrong(line, "%s %w", k.name, err)
		}
		if k.name == "secret" || k.name == "sshPassPhrase" || k.name == "notify" { // who has its URL can use it
			c.holdsSecret = true
		}
	}
	r.complete(w)
	if len(r.errs) > before {
		return nil
	}
	return &w.Repo
}

// complete checks what goes together, and resolves what stands for something
// else.
func (r *reader) complete(w *raw) {
	line := w.Line
	for _, missing := range []struct{ name, value string }{{"url", w.URL}, {"path", w.Path}, {"directory", w.Directory}} {
		if missing.value == "" {
			r.wrong(line, "the repository has no %s: add one", missing.name)
		}
	}
	if w.URL == "" || w.Path == "" || w.Directory == "" {
		return
	}
	var err error
	if w.Identity, err = webhook.ParseRemote(w.URL); err != nil {
		r.wrong(line, "the url of %s cannot be used: %w", w.Path, err)
		return
	}
	r.credentials(w)
	for _, other := range w.others {
		remote, err := webhook.ParseRemote(other)
		if err != nil {
			r.wrong(line, "payloadURL of %s cannot be used: %w", w.Path, err)
			continue
		}
		w.Others = append(w.Others, remote)
	}
	if !strings.HasPrefix(w.Path, "/") || strings.ContainsAny(w.Path, "?#") || path.Clean(w.Path) != strings.TrimSuffix(w.Path, "/") && w.Path != "/" {
		r.wrong(line, "the path %q is none that a request can have: begin it with /, without // or ..", w.Path)
	}
	w.Name = cmp.Or(w.Name, w.Path)
	if w.Directory, err = filepath.Abs(w.Directory); err != nil {
		r.wrong(line, "the directory of %s: %w", w.Path, err)
	} else if filepath.Dir(w.Directory) == w.Directory {
		r.wrong(line, "the directory of %s is the root of the file system: give one of its own", w.Path)
	}
	r.labels(w)
	if !goodRemote(w.Remote) {
		r.wrong(line, "the remote %.64q of %s is no name of one: use letters, digits, . _ and -", w.Remote, w.Path)
	}
	if w.Publish == Symlink && runtime.GOOS == "windows" {
		r.wrong(line, "publish: symlink needs a file system that replaces a symbolic link at once: leave it out on Windows")
	}
	if w.Publish == Symlink && w.Clean {
		r.wrong(line, "clean is for updates in place: with publish: symlink every tree is new")
	}
	r.secrets(w)
}

// credentials takes user and password out of the URL, which ends up in
// arguments and files.
func (r *reader) credentials(w *raw) {
	if w.passwordFile != "" {
		w.Password = r.secretFile(w, "passwordFile", w.passwordFile)
	}
	u, err := url.Parse(w.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		inside := false // git would show it to everybody on the machine
		if err == nil && u.User != nil {
			_, inside = u.User.Password()
		}
		if w.Password != "" || w.User != "" || inside {
			r.wrong(w.Line, "user and password of %s are for https URLs: with ssh there is sshPrivKey", w.Path)
		}
		return
	}
	if u.User != nil {
		if password, ok := u.User.Password(); ok {
			r.config.holdsSecret = true
			w.Password = cmp.Or(w.Password, password)
		}
		w.User = cmp.Or(w.User, u.User.Username())
		u.User = nil
		w.URL = u.String()
	}
	if w.Password != "" && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		r.wrong(w.Line, "the password of %s would go over plain http: give an https URL", w.Path)
	}
	w.User = cmp.Or(w.User, "git")
}

func isLoopback(host string) bool {
	return host == "localhost" || strings.HasPrefix(host, "127.") || host == "::1"
}

// labels settles what is followed.
func (r *reader) labels(w *raw) {
	switch w.labelType {
	case "branch":
	case "tag":
		w.Tag = true
	default:
		if w.labelType != "" || !w.hasBranch && w.hasLabel {
			r.warn(w.Line, "the labelType of %s is %.20q: it is taken for branch", w.Path, w.labelType)
		}
	}
	switch {
	case w.hasBranch && w.Tag:
		r.wrong(w.Line, "%s has a branch and labelType tag: keep one of them", w.Path)
	case w.hasBranch && w.hasLabel && w.branch != w.label:
		r.wrong(w.Line, "%s has branch %q and label %q: keep one of them", w.Path, w.branch, w.label)
	case w.hasBranch:
		w.Label = w.branch
	case w.hasLabel:
		w.Label = w.label
	case w.Tag:
		r.wrong(w.Line, "%s has labelType tag and no label: say which tag", w.Path)
		return
	default:
		w.Label = defaultBranch
	}
	if !goodRef(w.Ref()) {
		r.wrong(w.Line, "the label %.64q of %s is no name that git gives to a branch or tag", w.Label, w.Path)
	}
}

// secrets refuses a repository that anybody could update.
func (r *reader) secrets(w *raw) {
	if w.secretFile != "" {
		if s := r.secretFile(w, "secretFile", w.secretFile); s != "" {
			w.Secrets = append(w.Secrets, s)
		}
	}
	if w.phraseFile != "" {
		w.SSHPassPhrase = r.secretFile(w, "sshPassPhraseFile", w.phraseFile)
	}
	blank := slices.ContainsFunc(w.Secrets, func(s string) bool { return strings.TrimSpace(s) == "" })
	w.Secrets = slices.DeleteFunc(w.Secrets, func(s string) bool { return strings.TrimSpace(s) == "" })
	switch {
	case len(w.Secrets) == 0 && !w.Insecure:
		r.wrong(w.Line, "%s has no secret, so anybody could send it webhooks: add `secret:` as it is at the forge, or `insecure: true`", w.Path)
	case len(w.Secrets) > 0 && w.Insecure:
		r.wrong(w.Line, "%s has a secret and insecure: true: keep one of them", w.Path)
	case blank && len(w.Secrets) > 0:
		r.wrong(w.Line, "one of the secrets of %s is blank", w.Path)
	case w.Insecure:
		r.warn(w.Line, "anybody who reaches %s can have it updated: insecure is true", w.Path)
	}
}

// maxSecret is the longest secret in a file of its own, in bytes.
const maxSecret = 64 << 10

func (r *reader) secretFile(w *raw, key, name string) string {
	w.secretFiles = append(w.secretFiles, secretFile{key, name})
	info, err := os.Stat(name)
	var text []byte
	switch {
	case err == nil && info.Size() > maxSecret:
		err = fmt.Errorf("%s is larger than %d KiB", name, maxSecret>>10)
	case err == nil:
		text, err = os.ReadFile(name)
	}
	secret := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		r.wrong(w.Line, "cannot read %s: %w", key, err)
	case secret == "":
		r.wrong(w.Line, "%s is empty: %s", key, name)
	}
	return secret
}

func checkNotify(s string) error {
	format, address, ok := strings.Cut(s, "+")
	if !ok || !slices.Contains(noticeFormats, format) {
		return errors.New("must be FORMAT+URL, where FORMAT is " + strings.Join(noticeFormats, " or "))
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return errors.New("must have an https URL after the +: who sees a webhook's address can use it")
	}
	return nil
}
