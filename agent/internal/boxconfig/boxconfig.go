// Package boxconfig makes the configuration of the container back end from what
// its user said: a file of YAML, and the options of the command line, which come
// before the file. What does not fit together it refuses in a sentence that names
// the option.
//
// It must know nothing of SSH, and asks no engine.
package boxconfig

import (
	"errors"
	"fmt"
	"math"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	dockercontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"

	"example.com/converge/container"
	"example.com/converge/pkg/cmdline"
)

// Options are the options of the command line that concern containers. The zero
// value of each is that it was not given.
type Options struct {
	File      string // of the configuration
	Image     string
	Container string // an existing one
	Mode      string

	Engine, EngineCA, EngineCert, EngineKey string

	// Command is what a shell is in mode session, Idle process 1 in mode
	// connection, Shell the shell: a program and its arguments, one each.
	Command, Idle []string
	Shell         string
	Subsystems    []string // NAME=COMMAND LINE
	Pull          string
	Platform      string // OS/ARCH[/VARIANT]
	RegistryUser  string
	RegistryPass  string

	User, Workdir, Network string
	Env                    []string // NAME=VALUE, or NAME for the agent's own
	Mounts, Volumes        []string
	Memory                 int64   // bytes
	CPUs                   float64 // NaN was not given
	Pids                   *int64
	CapAdd, CapDrop        []string
	ReadOnly, Unhardened   bool
	Timeouts               []string // NAME=DURATION

	Guest     string // a file on this machine
	GuestPath string // a file in the image
	NoGuest   bool
}

// Config returns the configuration. lookup finds variables of the agent's own
// environment. Where the guest comes from is the caller's to add, unless the
// configuration says it.
func (o Options) Config(lookup func(string) (string, bool)) (container.Config, error) {
	var cfg container.Config
	if o.File != "" {
		var err error
		if cfg, err = Load(o.File); err != nil {
			return cfg, err
		}
	}
	e := &cfg.Execution
	set(&cfg.Connection.Host, o.Engine)
	set(&cfg.Connection.CACert, o.EngineCA)
	set(&cfg.Connection.Cert, o.EngineCert)
	set(&cfg.Connection.Key, o.EngineKey)
	set(&e.Image, o.Image)
	set(&e.Existing, o.Container)
	set(&e.Container.User, o.User)
	set(&e.Container.WorkingDir, o.Workdir)
	set(&e.GuestFile, o.Guest)
	set(&e.AgentPath, o.GuestPath)
	set((*string)(&e.Mode), o.Mode)
	set((*string)(&e.Host.NetworkMode), o.Network)
	setList(&e.Cmd, o.Command)
	setList(&e.IdleCommand, o.Idle)
	if o.Shell != "" {
		e.ShellCommand = []string{o.Shell}
	}
	e.DisableAgent = e.DisableAgent || o.NoGuest
	e.Unhardened = e.Unhardened || o.Unhardened
	e.Host.ReadonlyRootfs = e.Host.ReadonlyRootfs || o.ReadOnly
	e.Host.CapAdd = append(e.Host.CapAdd, o.CapAdd...)
	e.Host.CapDrop = append(e.Host.CapDrop, o.CapDrop...)
	for _, step := range []func(*container.Config) error{
		o.mode, o.guest, o.pull, o.platform, o.limits, o.mounts, o.subsystems, o.timeouts, o.auth,
		func(cfg *container.Config) error { return o.environment(cfg, lookup) },
		existing,
	} {
		if err := step(&cfg); err != nil {
			return cfg, cmdline.Usagef("%w", err)
		}
	}
	// Which also looks at the engine's address.
	handler, err := container.New(net.TCPAddr{}, "", cfg, nil, nil, nil)
	if err != nil {
		var e *container.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return cfg, cmdline.Usagef("the container cannot be as it is configured: %w", err)
	}
	handler.OnDisconnect()
	return cfg, nil
}

func set(to *string, value string) {
	if value != "" {
		*to = value
	}
}

func setList(to *[]string, value []string) {
	if len(value) > 0 {
		*to = value
	}
}

func (o Options) mode(*container.Config) error {
	switch container.Mode(o.Mode) {
	case "", container.ModeConnection, container.ModeSession:
		return nil
	}
	return fmt.Errorf("--container-mode is %q: it must be connection or session", o.Mode)
}

// guest says in the options' words what Validate says in the configuration's.
func (o Options) guest(cfg *container.Config) error {
	e := &cfg.Execution
	switch {
	case o.NoGuest && (o.Guest != "" || o.GuestPath != ""):
		return errors.New("--no-guest excludes --guest and --guest-path: leave one of them out")
	case o.NoGuest && e.Existing == "" && e.Mode != container.ModeSession && len(e.IdleCommand)+len(e.IdleProgram) == 0:
		return errors.New("--no-guest needs a program that keeps the container: give it by --container-idle-command, a word each")
	}
	return nil
}

// pull takes the policy in the words of the configuration, and in those of the
// engines' own clients.
func (o Options) pull(cfg *container.Config) error {
	policies := map[string]container.PullPolicy{
		"always": container.PullAlways, "missing": container.PullIfNotPresent, "ifnotpresent": container.PullIfNotPresent, "never": container.PullNever,
	}
	if o.Pull == "" {
		return nil
	}
	policy, ok := policies[strings.ToLower(o.Pull)]
	if !ok {
		return fmt.Errorf("--container-pull is %q: it must be always, missing or never", o.Pull)
	}
	cfg.Execution.ImagePullPolicy = policy
	return nil
}

func (o Options) platform(cfg *container.Config) error {
	if o.Platform == "" {
		return nil
	}
	parts := strings.Split(o.Platform, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return fmt.Errorf("--container-platform is %q: give one such as linux/amd64 or linux/arm/v7", o.Platform)
	}
	p := &cfg.Execution.Platform
	p.OS, p.Architecture, p.Variant = parts[0], parts[1], ""
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return nil
}

func (o Options) limits(cfg *container.Config) error {
	r := &cfg.Execution.Host.Resources
	if o.Memory != 0 {
		r.Memory = o.Memory
	}
	if !math.IsNaN(o.CPUs) && o.CPUs != 0 {
		if o.CPUs < 0.01 || o.CPUs > 1e6 {
			return fmt.Errorf("--container-cpus is %v: it must be 0.01 or more", o.CPUs)
		}
		r.NanoCPUs = int64(math.Round(o.CPUs * 1e9))
	}
	if o.Pids != nil {
		if *o.Pids < -1 || *o.Pids == 0 {
			return fmt.Errorf("--container-pids is %d: it must be 1 or more, or -1 for no limit", *o.Pids)
		}
		r.PidsLimit = o.Pids
	}
	for _, list := range [][]string{o.CapAdd, o.CapDrop} {
		for _, name := range list {
			if !capability.MatchString(name) {
				return fmt.Errorf("%.64q is not the name of a capability: give one such as SYS_PTRACE, or ALL", name)
			}
		}
	}
	return nil
}

var capability = regexp.MustCompile(`^[A-Za-z_]+$`)

func (o Options) subsystems(cfg *container.Config) error {
	for _, text := range o.Subsystems {
		name, line, ok := strings.Cut(text, "=")
		if !ok || name == "" || strings.TrimSpace(line) == "" {
			return fmt.Errorf("--container-subsystem is %.64q: write NAME=PROGRAM, such as sftp=/usr/lib/ssh/sftp-server", text)
		}
		if cfg.Execution.Subsystems == nil {
			cfg.Execution.Subsystems = map[string]string{}
		}
		cfg.Execution.Subsystems[name] = line
	}
	return nil
}

func (o Options) timeouts(cfg *container.Config) error {
	t := &cfg.Timeouts
	names := []string{"containerStart", "containerStop", "commandStart", "signal", "window", "http"}
	places := []*container.Duration{&t.ContainerStart, &t.ContainerStop, &t.CommandStart, &t.Signal, &t.Window, &t.HTTP}
	for _, text := range o.Timeouts {
		name, value, _ := strings.Cut(text, "=")
		i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
		d, err := time.ParseDuration(value)
		if i < 0 || err != nil || d <= 0 {
			return fmt.Errorf("--container-timeout is %.64q: write NAME=DURATION, such as containerStart=2m, with a NAME of %s", text, strings.Join(names, ", "))
		}
		*places[i] = container.Duration(d)
	}
	return nil
}

func (o Options) auth(cfg *container.Config) error {
	switch {
	case o.RegistryUser == "" && o.RegistryPass == "":
		return nil
	case o.RegistryUser == "" || o.RegistryPass == "":
		return fmt.Errorf("--registry-user and --registry-password go together: give both, or neither")
	}
	cfg.Execution.Auth = &registry.AuthConfig{Username: o.RegistryUser, Password: o.RegistryPass}
	return nil
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// environment adds variables, the agent's own for those without a value.
func (o Options) environment(cfg *container.Config, lookup func(string) (string, bool)) error {
	for _, text := range o.Env {
		name, value, given := strings.Cut(text, "=")
		if !variable.MatchString(name) {
			return fmt.Errorf("--container-env names %.64q: write NAME=VALUE, or NAME for the value that the agent has", name)
		}
		if !given {
			var ok bool
			if value, ok = lookup(name); !ok {
				return fmt.Errorf("--container-env %s: the agent has no such variable: write %[1]s=VALUE, or leave it out", name)
			}
		}
		cfg.Execution.Container.Env = append(cfg.Execution.Container.Env, name+"="+value)
	}
	return nil
}

// existing refuses what can be said of a new container only.
func existing(cfg *container.Config) error {
	e := &cfg.Execution
	if e.Existing == "" || e.Image != "" {
		return nil // Validate refuses both
	}
	only := dockercontainer.Config{User: e.Container.User, WorkingDir: e.Container.WorkingDir, Env: e.Container.Env, Image: e.Container.Image}
	for _, c := range []struct {
		said bool
		what string
	}{
		{!reflect.DeepEqual(e.Host, dockercontainer.HostConfig{}) && !emptyLists(e.Host), "its mounts, network, limits and capabilities"},
		{!reflect.DeepEqual(e.Container, only), "its settings, but for user, working folder and environment,"},
		{!reflect.ValueOf(e.Network).IsZero(), "its networks"},
		{!reflect.ValueOf(e.Platform).IsZero(), "its platform"},
		{e.ImagePullPolicy != "" || e.Auth != nil, "whether its image is fetched, and how,"},
		{len(e.Cmd)+len(e.IdleCommand)+len(e.IdleProgram) > 0, "its command"},
		{e.Unhardened, "how it is hardened"},
	} {
		if c.said {
			return fmt.Errorf("an existing container has what it has: %s cannot be given for it; leave them out, or give --image", c.what)
		}
	}
	return nil
}

// emptyLists reports whether nothing but lists without members is in a host
// configuration.
func emptyLists(h dockercontainer.HostConfig) bool {
	if len(h.CapAdd)+len(h.CapDrop)+len(h.Binds)+len(h.Mounts) > 0 {
		return false
	}
	h.CapAdd, h.CapDrop, h.Binds, h.Mounts = nil, nil, nil, nil
	return reflect.DeepEqual(h, dockercontainer.HostConfig{})
}
