// Package host runs users' programs on the machine of the agent, in this process's
// surroundings, as OpenSSH's server would: in a process session (setsid) of its own
// each. On Windows a job object takes the place of the session, and a pseudo console
// that of the terminal.
//
// When a client closes its session, all processes in it get SIGHUP; the same goes,
// after a second, for those that a command or shell leaves behind when it ends.
// Those that ignore it, as under nohup, live on until the owner hurries: then they
// get SIGTERM, and SIGKILL 5 s later. What has to outlive the agent has to leave the
// session, by setsid, tmux, screen or the like.
//
// It must not know SSH, nor what the programs are for.
package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/agent/internal/sftpd"
)

// Config says how programs run.
type Config struct {
	// Shell is the absolute path of the program that runs shells and commands.
	// "" takes SHELL of Env, or else of this process, if it is a shell that is
	// there, and the platform's default if it is not.
	Shell string
	// Dir is the working folder of programs and the start of relative paths; ""
	// is that of this process.
	Dir string
	// Env is the environment of programs, complete: nothing is inherited behind
	// its back. SHELL, PWD, and on a terminal TERM and SSH_TTY, are set over it.
	Env []string
}

// Backend is the machine of the agent.
type Backend struct {
	dir   string
	env   []string
	shell string
}

var _ backend.Backend = (*Backend)(nil)

// New returns the back end. The error says that there is no shell.
func New(cfg Config) (*Backend, error) {
	shell, err := findShell(cfg.Shell, cfg.Env)
	if err != nil {
		return nil, err
	}
	return &Backend{dir: cfg.Dir, env: slices.Clone(cfg.Env), shell: shell}, nil
}

// Name is "": users are where they expect to be.
func (*Backend) Name() string { return "" }

// Shell is the path of the shell.
func (b *Backend) Shell() string { return b.shell }

// Terminals is an error on an old Windows.
func (*Backend) Terminals() error { return terminals() }

// Subsystem knows none.
func (*Backend) Subsystem(string) bool { return false }

// Begin returns a place that all connections share.
func (b *Backend) Begin(peer backend.Peer, owner backend.Owner) backend.Place {
	return &place{Backend: b, owner: owner, readOnly: peer.ReadOnlyFiles}
}

// place is the machine for one connection.
type place struct {
	*Backend
	owner    backend.Owner
	readOnly bool
}

// End has nothing to do: programs outlive their connection as the owner wants.
func (*place) End() {}

// Start starts a program by the shell.
func (p *place) Start(_ context.Context, program backend.Program) (backend.Process, error) {
	env := slices.Clone(p.env)
	if len(program.Unset) > 0 {
		env = slices.DeleteFunc(env, func(entry string) bool {
			name, _, _ := strings.Cut(entry, "=")
			return slices.Contains(program.Unset, name)
		})
	}
	env = append(append(env, program.Env...), ownVariables(p.shell, p.dir)...)
	c := command{shell: p.shell, line: program.Line, dir: p.dir, env: env, terminal: program.Terminal}
	started, err := c.start()
	if err != nil {
		if _, missing := os.Stat(c.dir); c.dir != "" && missing != nil {
			// The system gives the same error for program and folder.
			return nil, fmt.Errorf("cannot start in the working folder: %w", missing)
		}
		return nil, fmt.Errorf("cannot start %s: %w", c.shell, err)
	}
	started.owner = p.owner
	p.owner.Go(started.watch)
	return started, nil
}

// Files serves the files of the machine.
func (p *place) Files(_ context.Context, f backend.Files) (backend.Outcome, error) {
	if err := sftpd.Serve(f.Stream, sftpd.Options{Dir: p.dir, ReadOnly: p.readOnly}); err != nil {
		return backend.Outcome{Status: 1}, err
	}
	return backend.Outcome{}, nil
}

// path makes a path absolute. A relative one starts where programs and files do;
// in no case is it a name in Linux's abstract namespace.
func (b *Backend) path(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	if b.dir != "" {
		return filepath.Join(b.dir, path)
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return filepath.Join(string(filepath.Separator), path)
}
