// Package config reads gitgate's configuration: YAML, JSON or TOML with the keys
// of gwg, which it takes as they are, and those of its own. It knows what values
// mean and which go together, and runs no git and opens no connection.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.com/converge/pkg/webhook"
)

// Config is all that holds. It is not changed once it is loaded.
type Config struct {
	// File is where it was read, and Sum what Digest says of the text.
	File, Sum string

	// Listen and Port are where webhooks arrive; "" is every address, and port 0
	// a free one.
	Listen string
	Port   int
	// RetryCount is how often a clone or an update is tried in all, and RetryDelay
	// how long it is waited before the second time; each wait after it is twice as
	// long.
	RetryCount int
	RetryDelay time.Duration
	// Threads is how many repositories are cloned or updated at a time.
	Threads int
	// Initialise brings all repositories up at the start, and those that a reload
	// adds.
	Initialise bool
	Logging    Logging

	// Poll is how often a repository is looked at without a webhook; 0 is never.
	Poll time.Duration
	// Timeout ends one git command.
	Timeout time.Duration
	// AllowSHA1 accepts GitHub's old signature.
	AllowSHA1 bool
	// MaxBody is the largest payload, in bytes.
	MaxBody int
	// ReplayWindow is how long a delivery is remembered; 0 is not at all.
	ReplayWindow time.Duration
	// KnownHosts is a file of ssh's; "" are ssh's own.
	KnownHosts string
	// CAFile is a PEM file with the authorities of https remotes; "" are the
	// machine's.
	CAFile string
	// TLSCert and TLSKey are PEM files; "" is plain HTTP.
	TLSCert, TLSKey string
	// MetricsListen is HOST:PORT of the second listener; "" is none.
	MetricsListen string
	// Notify are the places to tell, FORMAT+URL.
	Notify []string

	// Repos are in the order of the file.
	Repos []*Repo

	// holdsSecret says that something secret is in the file itself.
	holdsSecret bool
}

// Logging is how to log.
type Logging struct {
	// JSON is the format; else it is text.
	JSON bool
	// Output is stdout or a file.
	Output string
	Level  slog.Level
	// Timestamp puts the time into every line.
	Timestamp bool
}

// Publish is how a tree reaches its readers.
type Publish string

// The modes.
const (
	// InPlace changes the files of the directory.
	InPlace Publish = ""
	// Symlink makes the directory a symbolic link, which is moved to a whole new
	// tree at once.
	Symlink Publish = "symlink"
)

// Repo is a repository to keep in step.
type Repo struct {
	// Line is where it begins in the file.
	Line int
	// Name is what people and metrics call it: the path unless it has one.
	Name string
	// URL is without user and password; those are in User and Password.
	URL, User, Password string
	// Identity is what URL leads to, and Others what payloads may call it besides.
	Identity webhook.Remote
	Others   []webhook.Remote
	// Path is that of the webhook, and Directory the absolute one of the tree.
	Path, Directory string
	// Inner are the directories of other repositories below it, sorted.
	Inner []string
	// Label is a branch, or a tag if Tag says so.
	Label  string
	Tag    bool
	Remote string
	// Trigger is a file to touch after an update, "" for none.
	Trigger string
	// Secrets are those that are good; there are none only if Insecure.
	Secrets  []string
	Insecure bool
	// SSHKey is a file with a private key, SSHPassPhrase what opens it.
	SSHKey, SSHPassPhrase string
	KnownHosts, CAFile    string

	AllowSHA1 bool
	Poll      time.Duration
	Timeout   time.Duration
	Publish   Publish
	// Keep is how many trees are kept beside the published one.
	Keep int
	// Clean removes untracked files after an update in place.
	Clean      bool
	Submodules bool
	LFS        bool
	GC         bool
	// Depth is how many commits are fetched; 0 is all.
	Depth int
	// Exec is a command to run after an update, without a shell; nil for none.
	Exec        []string
	ExecTimeout time.Duration
	Notify      []string

	// secretFiles are those that secrets were read from.
	secretFiles []secretFile
}

// secretFile is a key with the file that it names.
type secretFile struct{ key, name string }

// Ref is the full name of what is followed.
func (r *Repo) Ref() string {
	if r.Tag {
		return "refs/tags/" + r.Label
	}
	return "refs/heads/" + r.Label
}

// Warning is something that is odd, and no mistake.
type Warning struct {
	Line int // 0 where there is none
	Text string
}

func (w Warning) String() string {
	if w.Line == 0 {
		return w.Text
	}
	return fmt.Sprintf("line %d: %s", w.Line, w.Text)
}

// Override is a value of the command line or of the environment.
type Override struct {
	Key, Value string
	// Source says where it stands.
	Source string
}

// NotFoundError says that there is no file anywhere.
type NotFoundError struct{ Folders []string }

func (e *NotFoundError) Error() string {
	return "there is no configuration: give --config FILE, or put config.yaml, config.json or config.toml into " + strings.Join(e.Folders, ", ")
}

// Places are the folders that are searched, in order: ours, the reference's, and
// the current one. In the latter two unknown keys are no mistakes.
var Places = []string{"/etc/gitgate", "/etc/gwg", "."}

// Find returns the configuration of the first folder that has one, and whether
// its keys must all be known. More than one in a folder is an error, none
// anywhere a *NotFoundError.
func Find(folders []string) (path string, strict bool, err error) {
	for i, folder := range folders {
		var found []string
		for _, f := range formats {
			name := filepath.Join(folder, "config."+f.ending)
			switch info, err := os.Stat(name); {
			case err == nil && !info.IsDir():
				found = append(found, name)
			case err != nil && !errors.Is(err, os.ErrNotExist):
				return "", false, fmt.Errorf("cannot look for the configuration: %w", err)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], i == 0, nil
		default:
			return "", false, fmt.Errorf("there is more than one configuration: keep one of %s", strings.Join(found, ", "))
		}
	}
	return "", false, &NotFoundError{Folders: folders}
}

// Load reads a file. Where strict, unknown keys are mistakes. The errors name the
// file, and the line where there is one, and hold no secret; all mistakes are told
// at once, joined.
func Load(path string, strict bool, overrides []Override) (*Config, []Warning, error) {
	text, err := read(path)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	c, warnings, err := Parse(text, path, strict, overrides)
	if err != nil {
		return nil, warnings, fmt.Errorf("cannot use the configuration %s: %w", path, err)
	}
	c.Sum = Digest(text)
	if c.holdsSecret && readableByOthers(path) {
		warnings = append(warnings, Warning{Text: ReadableByOthers})
	}
	return c, warnings, nil
}

// ReadableByOthers is the text of the warning about that.
const ReadableByOthers = "the file holds secrets, and every user of this machine may read it: chmod o-rwx it"

// Digest names the text of a file.
func Digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d KiB", path, maxFile>>10)
	}
	return text, err
}

// Parse reads the text of a file, whose format is told by its name.
func Parse(text []byte, path string, strict bool, overrides []Override) (*Config, []Warning, error) {
	parse := parseYAML
	for _, f := range formats {
		if strings.EqualFold(filepath.Ext(path), "."+f.ending) {
			parse = f.parse
		}
	}
	root, err := parse(text)
	if err != nil {
		return nil, nil, err
	}
	if root.kind == null {
		root = &node{kind: mapping, line: 1}
	}
	if root.kind != mapping {
		return nil, nil, fmt.Errorf("line %d: it must be lines of KEY: VALUE", root.line)
	}
	r := &reader{strict: strict, config: &Config{File: path}}
	r.readTop(root, overrides)
	r.check()
	if len(r.errs) > 0 {
		return nil, r.warnings, errors.Join(r.errs...)
	}
	return r.config, r.warnings, nil
}

// noticeFormats are the formats of FORMAT+URL.
var noticeFormats = []string{"slack", "json"}

// limits of numbers.
const (
	maxRetries = 1000
	maxThreads = 256
	maxSeconds = math.MaxInt32
)
