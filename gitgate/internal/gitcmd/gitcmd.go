// Package gitcmd runs the git command line where neither the machine's
// configuration, nor a repository's hooks, nor a question to a user, nor a hung
// peer can get in the way. It knows what git said when it failed, and not what it
// was asked for.
package gitcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"example.com/converge/pkg/shellword"
	"example.com/converge/pkg/transport"
)

const (
	// maxOutput and maxErrors are how much of what git says is kept, in bytes: of
	// its output the beginning, of its errors the end.
	maxOutput = 4 << 20
	maxErrors = 16 << 10
	// grace is how long git may take to end when it is told to: it removes its
	// lock files then.
	grace = 5 * time.Second
)

// Git runs commands in one repository. The zero value is not usable: see New.
// Its methods are not to be called concurrently.
type Git struct {
	// Dir is where commands run.
	Dir string
	// Timeout ends each command; 0 is never.
	Timeout time.Duration
	// Log gets a line for every command, at the level debug; nil discards.
	Log *slog.Logger

	env     []string
	config  [][2]string
	inherit *os.File
	close   []func()

	uploadPack string
}

// Options say how commands are to reach a remote.
type Options struct {
	// SSHKey is the file of a private key, PassPhrase what opens it, KnownHosts a
	// file with the keys of servers. Each may be empty.
	SSHKey, PassPhrase, KnownHosts string
	// CAFile is a PEM file with the certificates to trust in place of the
	// machine's; "" are those.
	CAFile string
	// URL is the remote, and whom User and Password are for.
	URL, User, Password string
	// LFS fetches large files; without it their pointers stay.
	LFS bool
	// Inherit is a file that commands keep open, such as a lock that must hold as
	// long as they run; nil for none.
	Inherit *os.File
}

// New prepares for running git in dir. Close ends what that takes. The error is
// an *Error of the reason Key where a private key cannot be used.
func New(dir string, o Options) (*Git, error) {
	g := &Git{Dir: dir, inherit: o.Inherit}
	g.env = environment()
	g.config = [][2]string{
		{"core.hooksPath", os.DevNull},
		{"core.fsmonitor", "false"},
		{"core.askPass", ""},
		{"core.attributesFile", os.DevNull},
		{"core.excludesFile", os.DevNull},
		{"credential.helper", ""},
		{"protocol.allow", "never"},
		{"protocol.https.allow", "always"},
		{"protocol.http.allow", "always"},
		{"protocol.ssh.allow", "always"},
		{"protocol.git.allow", "user"},
		{"protocol.file.allow", "user"}, // and not for submodules
		{"protocol.ext.allow", "never"},
		{"gc.auto", "0"},
		{"gc.autoDetach", "false"},
		{"maintenance.auto", "false"},
		{"submodule.recurse", "false"},
		{"fetch.recurseSubmodules", "false"},
		{"core.protectHFS", "true"},
		{"core.protectNTFS", "true"},
		{"advice.detachedHead", "false"},
		{"init.defaultBranch", "master"},
		{"http.lowSpeedLimit", "1"}, // a peer that says nothing for a minute
		{"http.lowSpeedTime", "60"},
	}
	if strings.HasPrefix(o.URL, "/") || strings.HasPrefix(o.URL, "file://") {
		// The git at the other end is of this machine, does not see what this one is
		// told, and reads no repository of somebody else's otherwise.
		path := o.URL
		if u, err := url.Parse(o.URL); err == nil && u.Scheme == "file" {
			path = u.Path
		}
		g.uploadPack = "git -c " + shellword.Quote("safe.directory="+path) + " -c " + shellword.Quote("safe.directory="+filepath.Join(path, ".git")) + " upload-pack"
	}
	if o.LFS {
		g.config = append(g.config, [][2]string{
			{"filter.lfs.process", "git-lfs filter-process"}, {"filter.lfs.smudge", "git-lfs smudge -- %f"},
			{"filter.lfs.clean", "git-lfs clean -- %f"}, {"filter.lfs.required", "true"},
		}...)
	} else {
		g.env = append(g.env, "GIT_LFS_SKIP_SMUDGE=1")
	}
	if o.CAFile != "" {
		g.config = append(g.config, [2]string{"http.sslCAInfo", o.CAFile})
	}
	if o.Password != "" {
		g.config = append(g.config, basicAuth(o.URL, o.User, o.Password)...)
	}
	command, err := g.ssh(o)
	if err != nil {
		g.Close()
		return nil, err
	}
	g.env = append(g.env, "GIT_SSH_COMMAND="+command, "GIT_SSH_VARIANT=ssh")
	return g, nil
}

// UploadPack is what fetch must be given as --upload-pack; "" is nothing.
func (g *Git) UploadPack() string { return g.uploadPack }

// Close ends what New began.
func (g *Git) Close() {
	for _, end := range g.close {
		end()
	}
	g.close = nil
}

// In is the same for another folder. It is closed with g.
func (g *Git) In(dir string) *Git {
	other := *g
	other.Dir, other.close = dir, nil
	return &other
}

// foreign are the variables of the environment that would tell git or ssh what
// to do, or are ours.
var foreign = []string{"GIT_", "GITGATE_", "SSH_", "LC_", "LANG", "HOME=", "XDG_", "PAGER", "EDITOR", "VISUAL", "DISPLAY"}

func environment() []string {
	var env []string
next:
	for _, v := range os.Environ() {
		for _, prefix := range foreign {
			if strings.HasPrefix(v, prefix) {
				continue next
			}
		}
		env = append(env, v)
	}
	return append(env,
		"LC_ALL=C", // reasons are told by git's words
		"HOME="+os.DevNull,
		"XDG_CONFIG_HOME="+os.DevNull,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_SYSTEM="+os.DevNull, "GIT_CONFIG_GLOBAL="+os.DevNull,
		"GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=", "SSH_ASKPASS_REQUIRE=never", "GCM_INTERACTIVE=never",
		"GIT_OPTIONAL_LOCKS=0", "GIT_ADVICE=0", "GIT_PAGER=cat", "GIT_EDITOR=false",
	)
}

// With is the same with more of git's configuration: keys and values by turns.
func (g *Git) With(pairs ...string) *Git {
	other := g.In(g.Dir)
	other.config = append([][2]string(nil), g.config...)
	for i := 0; i+1 < len(pairs); i += 2 {
		other.config = append(other.config, [2]string{pairs[i], pairs[i+1]})
	}
	return other
}

// Run runs git with the arguments and returns its output without the white space
// around it. The error is an *Error. ctx ends the command and all that it has
// started: first gently, then at once.
func (g *Git) Run(ctx context.Context, args ...string) (string, error) {
	out, _, err := g.RunSaid(ctx, args...)
	return out, err
}

// RunSaid is Run, which also returns the end of what git said beside its output.
func (g *Git) RunSaid(ctx context.Context, args ...string) (out, said string, err error) {
	stdout := &head{most: maxOutput}
	if said, err = g.run(ctx, stdout, args); err != nil {
		return "", "", err
	}
	if stdout.over {
		return "", "", &Error{Command: args[0], Reason: Other, Text: fmt.Sprintf("it said more than %d MiB", maxOutput>>20)}
	}
	return strings.TrimSpace(stdout.text.String()), said, nil
}

// Stream is Run for an output of any length, which goes to w as it comes.
func (g *Git) Stream(ctx context.Context, w io.Writer, args ...string) error {
	_, err := g.run(ctx, w, args)
	return err
}

func (g *Git) run(ctx context.Context, stdout io.Writer, args []string) (said string, err error) {
	if g.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, g.Timeout, errTimeout)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = g.Dir
	// By the environment and not by -c: what is in it is not shown to everybody
	// on the machine.
	// The folder is one that the configuration names, whoever owns it.
	config := append([][2]string{{"safe.directory", g.Dir}, {"safe.directory", filepath.Join(g.Dir, ".git")}}, g.config...)
	cmd.Env = append(append([]string(nil), g.env...),
		"GIT_CONFIG_COUNT="+strconv.Itoa(len(config)),
		// Where the repository is broken, one above it must not take its place.
		"GIT_CEILING_DIRECTORIES="+filepath.Dir(g.Dir))
	for i, pair := range config {
		cmd.Env = append(cmd.Env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, pair[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, pair[1]))
	}
	stderr := &tail{most: maxErrors}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if g.inherit != nil && runtime.GOOS != "windows" {
		cmd.ExtraFiles = []*os.File{g.inherit}
	}
	prepare(cmd)
	cmd.WaitDelay = grace
	start := time.Now()
	err = runLocked(cmd)
	if g.Log != nil {
		g.Log.Debug("git", "args", strings.Join(args, " "), "took", time.Since(start).Round(time.Millisecond).String(), "ok", err == nil)
	}
	if err != nil {
		return "", explain(ctx, args[0], err, stderr.String())
	}
	return stderr.String(), nil
}

// runLocked runs a command from one thread of the system's: the kernel ends the
// command with the thread that has started it, and so with this process.
func runLocked(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	err := cmd.Wait()
	if err != nil {
		killGroup(cmd.Process) // whom it may have left
	}
	return err
}

var errTimeout = errors.New("the time limit is over")

// head keeps the beginning. The buffer is not embedded: it would be read into past
// Write.
type head struct {
	text bytes.Buffer
	most int
	over bool
}

func (h *head) Write(p []byte) (int, error) {
	if h.text.Len()+len(p) > h.most {
		h.over = true
		return len(p), nil
	}
	return h.text.Write(p)
}

// tail keeps the end.
type tail struct {
	text []byte
	most int
}

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p[max(0, len(p)-t.most):]...)
	t.text = t.text[max(0, len(t.text)-t.most):]
	return len(p), nil
}

func (t *tail) String() string { return string(t.text) }

var (
	_ io.Writer = (*head)(nil)
	_ io.Writer = (*tail)(nil)
)

// Version returns git's version, and an error where it is too old: what keeps the
// machine's configuration away is not in versions before 2.32.
func Version(ctx context.Context) (string, error) {
	g := &Git{env: environment(), Timeout: 10 * time.Second}
	out, err := g.Run(ctx, "version")
	if err != nil {
		return "", fmt.Errorf("cannot run git: install it: %w", err)
	}
	version := strings.TrimPrefix(out, "git version ")
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil || major < 2 || major == 2 && minor < 32 {
		return version, fmt.Errorf("git is of version %.30s: 2.32 or later is needed", transport.Printable(version))
	}
	return version, nil
}
