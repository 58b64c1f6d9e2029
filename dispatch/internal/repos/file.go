package repos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"go.yaml.in/yaml/v3"

	"example.com/converge/pkg/files"
	"example.com/converge/pkg/webhook"
)

// maxFile is how large the YAML file may be, in bytes.
const maxFile = 4 << 20

// unwrapURL takes the URL out of an error of net/http.
func unwrapURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// File is a Source that has read a YAML file. Its methods may be called
// concurrently.
type File struct {
	path  string
	repos atomic.Pointer[map[string]*Repo]
}

// NewFile reads one. The error is a *BadValue, or of the file.
func NewFile(path string) (*File, error) {
	f := &File{path: path}
	return f, f.Reload()
}

// Reload reads the file again; what was read before holds where it is wrong.
func (f *File) Reload() error {
	text, err := files.Read(f.path, maxFile)
	if err != nil {
		return fmt.Errorf("read the repositories: %w", err)
	}
	repos, err := parseYAML(f.path, text)
	if err != nil {
		return err
	}
	f.repos.Store(&repos)
	return nil
}

// Name implements Source.
func (f *File) Name() string { return "the file " + f.path }

// Check implements Source: what was read is there.
func (f *File) Check(context.Context) error { return nil }

// Len is how many repositories there are.
func (f *File) Len() int { return len(*f.repos.Load()) }

// Get implements Source. Another way of writing the same URL finds it, too.
func (f *File) Get(_ context.Context, repo string) (*Repo, error) {
	all := *f.repos.Load()
	if r, ok := all[repo]; ok {
		return r, nil
	}
	want, err := webhook.ParseRemote(repo)
	if err != nil {
		return nil, ErrUnknown
	}
	for name, r := range all {
		if got, err := webhook.ParseRemote(name); err == nil && got == want {
			return r, nil
		}
	}
	return nil, ErrUnknown
}

// parseYAML reads a whole file.
func parseYAML(name string, text []byte) (map[string]*Repo, error) {
	var all struct {
		Repositories map[string]document `yaml:"repositories"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	switch err := decoder.Decode(&all); {
	case errors.Is(err, io.EOF):
		return nil, &BadValue{name, "repositories", "it is missing: the file is empty"}
	case err != nil:
		return nil, &BadValue{name, yamlPlace(err), yamlMistake(err)}
	}
	repos, seen := map[string]*Repo{}, map[webhook.Remote]string{}
	for _, repo := range slices.Sorted(maps.Keys(all.Repositories)) {
		d := all.Repositories[repo]
		remote, err := webhook.ParseRemote(repo)
		if err != nil {
			return nil, &BadValue{name, fmt.Sprintf("repositories[%q]", shown(repo)), err.Error()}
		}
		if other := seen[remote]; other != "" { // which of them counts would be chance
			return nil, &BadValue{name, "repositories", fmt.Sprintf("two are of one repository: leave one of %q and %q", shown(other), shown(repo))}
		}
		seen[remote] = repo
		r, err := d.repo(name, fmt.Sprintf("repositories[%q].", shown(repo)), repo)
		if err != nil {
			return nil, err
		}
		repos[repo] = r
	}
	return repos, nil
}

// shown is a clone URL without a password, or nothing of what is none.
func shown(repo string) string {
	u, err := url.Parse(repo)
	switch {
	case err == nil:
		return u.Redacted()
	case strings.Contains(repo, "://"):
		return "…"
	}
	return repo // HOST:PATH has no password
}

var (
	yamlLine    = regexp.MustCompile(`line (\d+)`)
	yamlUnknown = regexp.MustCompile(`field (\S+) not found`)
	yamlKind    = regexp.MustCompile(`cannot unmarshal !!(\w+)`)
)

func yamlPlace(err error) string {
	if line := yamlLine.FindStringSubmatch(err.Error()); line != nil {
		return "line " + line[1]
	}
	return "the top"
}

// yamlMistake is the library's sentence without values, which it quotes.
func yamlMistake(err error) string {
	text := err.Error()
	if key := yamlUnknown.FindStringSubmatch(text); key != nil {
		return "there is no key " + key[1]
	}
	if kind := yamlKind.FindStringSubmatch(text); kind != nil {
		return "the value is of another kind (" + strings.ToLower(kind[1]) + ") than the key takes"
	}
	return "it is no YAML there"
}
