package boxconfig

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"example.com/converge/container"
)

// full has something of every kind of value.
const full = `# All kinds of values.
connection:
  host: unix:///run/podman/podman.sock
execution:
  image: 3.12
  mode: session
  container:
    user: 1000
    Env: [A=1, B=2]
    labels: {team: build}
    Volumes:
      /data: {}
    stopTimeout: 3
  host:
    Memory: 536870912
    nanoCPUs: 1500000000
    ReadonlyRootfs: true
    PidsLimit: 100
    dns: [192.0.2.1]
    PortBindings:
      80/tcp: [{HostPort: 8080}]
    Mounts:
      - {Type: tmpfs, Target: /tmp, TmpfsOptions: {Mode: 0o700}}
    Ulimits: [{Name: nofile, Soft: 10, Hard: 20}]
    ConsoleSize: [24, 80]
  platform: {os: linux, architecture: arm64}
  cmd: [make, test]
  subsystems:
    sftp: /usr/lib/ssh/sftp-server
  imagePullPolicy: Never
  auth: {username: me, password: "123"}
timeouts:
  containerStart: 2m
`

func TestDecode(t *testing.T) {
	cfg, err := Decode([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	e, h := cfg.Execution, cfg.Execution.Host
	if e.Image != "3.12" || e.Container.User != "1000" || e.Container.Labels["team"] != "build" || *e.Container.StopTimeout != 3 ||
		h.Memory != 512<<20 || h.NanoCPUs != 15e8 || !h.ReadonlyRootfs || *h.PidsLimit != 100 || h.DNS[0].String() != "192.0.2.1" ||
		len(h.PortBindings) != 1 || h.Mounts[0].TmpfsOptions.Mode != 0o700 || h.Ulimits[0].Hard != 20 || h.ConsoleSize != [2]uint{24, 80} ||
		e.Platform.Architecture != "arm64" || e.Auth.Password != "123" || cfg.Timeouts.ContainerStart != container.Duration(2*time.Minute) {
		t.Errorf("%+v", cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", "# nothing\n", "{}"} {
		if cfg, err := Decode([]byte(text)); err != nil || !reflect.DeepEqual(cfg, container.Config{}) {
			t.Errorf("%q: %+v, %v", text, cfg, err)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	for text, want := range map[string]string{
		"exection: {}":           `line 1: the key "exection" is not known: perhaps you mean execution`,
		"x: 1":                   "there are connection, execution, timeouts",
		"execution:\n  imgae: x": `line 2: the key "imgae" is not known in execution: perhaps you mean image`,
		"execution: {host: {Readonlyrootfss: true}}":        "in execution.host: perhaps you mean ReadonlyRootfs",
		"execution: {host: {zzzzzzzzzzzzz: 1}}":             "docs/container.md",
		"execution:\n  image: a\n  Image: b":                "line 3: execution.image is there twice: the first time in line 2",
		"execution: {container: {Labels: {a: 1, a: 2}}}":    "execution.container.Labels.a is there twice",
		"execution:\n  image:\n":                            "line 2: execution.image has no value",
		"execution: {image: [a]}":                           "execution.image must be one value",
		"execution: {cmd: make}":                            "execution.cmd must be a list",
		"execution: {cmd: [[a]]}":                           "execution.cmd[0] must be one value",
		"execution: {host: {Memory: 512MiB}}":               "execution.host.Memory must be a whole number",
		"execution: {host: {Memory: 1.5}}":                  "execution.host.Memory must be a whole number",
		"execution: {host: {Memory: 99999999999999999999}}": "must be a whole number",
		"execution: {host: {Privileged: 1}}":                "execution.host.Privileged must be true or false",
		"execution: {host: {Privileged: 'true'}}":           "must be true or false",
		"execution: {host: {ConsoleSize: [1]}}":             "must be a list of 2",
		"execution: {host: {Dns: [here]}}":                  "execution.host.Dns[0]: ",
		"execution: {host: {Dns: [[a]]}}":                   "must be one value",
		"execution: {container: {Volumes: [a]}}":            "must be lines of NAME: VALUE",
		"execution: {container: {Volumes: {[a]: {}}}}":      "must be lines of NAME: VALUE",
		"execution: x":                        "execution must be lines of NAME: VALUE",
		"execution: {[a]: b}":                 "execution must be lines of NAME: VALUE",
		"- a":                                 "the configuration must be lines",
		"timeouts: {http: 15}":                "timeouts.http must be a duration such as 60s",
		"timeouts: {http: soon}":              "must be a duration",
		"timeouts: {http: [1s]}":              "must be a duration",
		"timeouts: &t {http: 1s}\nx: *t":      "is not known",
		"execution: &e {}\ntimeouts: *e":      "timeouts is an alias: write it out",
		"a: b: c":                             "it is no YAML",
		"execution: {}\n---\nexecution: {}\n": "second document",
	} {
		if _, err := Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// none are options of which none is given.
func none() Options { return Options{CPUs: math.NaN()} }

// nothing is an environment without variables.
func nothing(string) (string, bool) { return "", false }

func TestOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "box.yaml")
	if err := os.WriteFile(file, []byte("execution:\n  image: of-the-file\n  container: {User: nobody, Env: [A=1]}\n  host: {Memory: 1}\ntimeouts: {http: 1s, signal: 2s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pids := int64(-1)
	o := Options{
		File: file, Image: "debian:12", Mode: "session", Engine: "unix:///x.sock", Command: []string{"make", "test"}, Shell: "/bin/zsh",
		Subsystems: []string{"sftp=/usr/lib/ssh/sftp-server -e"}, Pull: "missing", Platform: "linux/arm/v7", RegistryUser: "me", RegistryPass: "secret",
		Workdir: "/src", Network: "none", Env: []string{"B=2=3", "C"}, Mounts: []string{"type=bind,src=/src,dst=/src,ro"}, Volumes: []string{"cache:/cache:rw"},
		Memory: 512 << 20, CPUs: 1.5, Pids: &pids, CapAdd: []string{"SYS_PTRACE"}, CapDrop: []string{"ALL"}, ReadOnly: true, Unhardened: true,
		Timeouts: []string{"HTTP=3s", "containerStart=5m"}, GuestPath: "/guest",
	}
	cfg, err := o.Config(func(name string) (string, bool) { return "of " + name, name == "C" })
	if err != nil {
		t.Fatal(err)
	}
	e, h := cfg.Execution, cfg.Execution.Host
	for what, ok := range map[string]bool{
		"image": e.Image == "debian:12", "user of the file": e.Container.User == "nobody", "mode": e.Mode == container.ModeSession,
		"engine": cfg.Connection.Host == "unix:///x.sock", "command": reflect.DeepEqual(e.Cmd, o.Command), "shell": reflect.DeepEqual(e.ShellCommand, []string{"/bin/zsh"}),
		"subsystem": e.Subsystems["sftp"] == "/usr/lib/ssh/sftp-server -e", "pull": e.ImagePullPolicy == container.PullIfNotPresent,
		"platform": e.Platform.Architecture == "arm" && e.Platform.Variant == "v7", "auth": e.Auth.Username == "me" && e.Auth.Password == "secret",
		"folder": e.Container.WorkingDir == "/src", "network": h.NetworkMode == "none", "variables": reflect.DeepEqual(e.Container.Env, []string{"A=1", "B=2=3", "C=of C"}),
		"mount": len(h.Mounts) == 1 && h.Mounts[0].ReadOnly && h.Mounts[0].Target == "/src", "volume": reflect.DeepEqual(h.Binds, o.Volumes),
		"memory": h.Memory == 512<<20, "processors": h.NanoCPUs == 15e8, "processes": *h.PidsLimit == -1,
		"capabilities": len(h.CapAdd) == 1 && len(h.CapDrop) == 1, "read-only": h.ReadonlyRootfs, "unhardened": e.Unhardened,
		"timeouts": cfg.Timeouts.HTTP == container.Duration(3*time.Second) && cfg.Timeouts.Signal == container.Duration(2*time.Second) && cfg.Timeouts.ContainerStart == container.Duration(5*time.Minute),
		"guest":    e.AgentPath == "/guest",
	} {
		if !ok {
			t.Errorf("%s: %+v", what, cfg)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	zero := int64(0)
	for want, change := range map[string]func(*Options){
		"no image is given":                       func(o *Options) { o.Image = "" },
		"both an image and an existing container": func(o *Options) { o.Container = "x" },
		`--container-mode is "conection"`:         func(o *Options) { o.Mode = "conection" },
		`--container-pull is "sometimes"`:         func(o *Options) { o.Pull = "sometimes" },
		`--container-platform is "arm64"`:         func(o *Options) { o.Platform = "arm64" },
		`--container-platform is "linux/"`:        func(o *Options) { o.Platform = "linux/" },
		"--container-cpus is -1":                  func(o *Options) { o.CPUs = -1 },
		"--container-cpus is +Inf":                func(o *Options) { o.CPUs = math.Inf(1) },
		"--container-pids is 0":                   func(o *Options) { o.Pids = &zero },
		`"SYS-ADMIN" is not the name`:             func(o *Options) { o.CapAdd = []string{"SYS-ADMIN"} },
		`"" is not the name of a capability`:      func(o *Options) { o.CapDrop = []string{""} },
		`--container-subsystem is "sftp"`:         func(o *Options) { o.Subsystems = []string{"sftp"} },
		`--container-timeout is "http=0s"`:        func(o *Options) { o.Timeouts = []string{"http=0s"} },
		`--container-timeout is "htp=1s"`:         func(o *Options) { o.Timeouts = []string{"htp=1s"} },
		"--registry-user and --registry-password": func(o *Options) { o.RegistryUser = "me" },
		`--container-env names "a b"`:             func(o *Options) { o.Env = []string{"a b=x"} },
		"--container-env HOME: the agent has no":  func(o *Options) { o.Env = []string{"HOME"} },
		"the type is bind, volume":                func(o *Options) { o.Mounts = []string{"type=nfs,target=/x"} },
		"the target must be a path":               func(o *Options) { o.Mounts = []string{"source=x"} },
		"a bind needs a source":                   func(o *Options) { o.Mounts = []string{"type=bind,target=/x"} },
		"a tmpfs has no source":                   func(o *Options) { o.Mounts = []string{"type=tmpfs,source=x,target=/x"} },
		"tmpfs-size is for":                       func(o *Options) { o.Mounts = []string{"target=/x,tmpfs-size=1"} },
		"the value of tmpfs-size":                 func(o *Options) { o.Mounts = []string{"type=tmpfs,target=/x,tmpfs-size=1m"} },
		"the value of ro":                         func(o *Options) { o.Mounts = []string{"target=/x,ro=perhaps"} },
		`"bind-propagation" is not known here`:    func(o *Options) { o.Mounts = []string{"target=/x,bind-propagation=shared"} },
		"write SOURCE:TARGET":                     func(o *Options) { o.Volumes = []string{"/x"} },
		"with a TARGET that begins with /":        func(o *Options) { o.Volumes = []string{"a:b"} },
		"--no-guest excludes --guest":             func(o *Options) { o.NoGuest, o.Guest = true, "x" },
		"--no-guest needs a program":              func(o *Options) { o.NoGuest = true },
		"ssh://there":                             func(o *Options) { o.Engine = "ssh://there" },
		"the agent's path \"guest\"":              func(o *Options) { o.GuestPath = "guest" },
		"read TLS for the engine":                 func(o *Options) { o.EngineCA = filepath.Join(t.TempDir(), "none") },
		"read the container configuration":        func(o *Options) { o.File = filepath.Join(t.TempDir(), "none") },
	} {
		o := none()
		o.Image = "debian:12"
		change(&o)
		if _, err := o.Config(nothing); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestExisting: what a container was made with is not pretended to be changed.
func TestExisting(t *testing.T) {
	o := none()
	o.Container, o.User, o.Workdir, o.Env = "label=job=7", "root", "/", []string{"A=1"}
	cfg, err := o.Config(nothing)
	if err != nil || cfg.Execution.Existing != o.Container {
		t.Fatalf("%+v, %v", cfg, err)
	}
	one := int64(1)
	for want, change := range map[string]func(*Options){
		"its mounts, network, limits":   func(o *Options) { o.Network = "none" },
		"limits and capabilities":       func(o *Options) { o.CapAdd = []string{"ALL"} },
		"network, limits and":           func(o *Options) { o.Pids = &one },
		"its platform":                  func(o *Options) { o.Platform = "linux/arm64" },
		"whether its image is fetched":  func(o *Options) { o.Pull = "always" },
		"its command":                   func(o *Options) { o.Command = []string{"true"} },
		"how it is hardened":            func(o *Options) { o.Unhardened = true },
		"cannot be used in mode sessio": func(o *Options) { o.Mode = "session" },
	} {
		o := o
		change(&o)
		if _, err := o.Config(nothing); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	o.File = filepath.Join(t.TempDir(), "box.yaml")
	if err := os.WriteFile(o.File, []byte("execution: {container: {Hostname: x}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Config(nothing); err == nil || !strings.Contains(err.Error(), "its settings, but for user") {
		t.Error(err)
	}
}

func TestWarnings(t *testing.T) {
	for _, name := range []string{"DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"} {
		t.Setenv(name, "")
	}
	for text, want := range map[string]string{
		"execution: {image: x}":                                                               "",
		"execution: {host: {Binds: ['/var/run/docker.sock:/s']}}":                             "socket is mounted",
		"execution: {host: {Binds: ['/var:/v', 'x:/y']}}":                                     "socket is mounted",
		"execution: {host: {Mounts: [{Type: bind, Source: /, Target: /host}]}}":               "socket is mounted",
		"execution: {host: {Mounts: [{Type: bind, Source: /srv, Target: /srv}]}}":             "",
		"{connection: {host: 'unix:///run/x/p.sock'}, execution: {host: {Binds: [/run:/r]}}}": "socket is mounted",
		"execution: {host: {Binds: ['/run:/r']}}":                                             "socket is mounted",
		"{connection: {host: 'tcp://192.0.2.1:1'}, execution: {host: {Binds: [/run:/r]}}}":    "socket is mounted",
		"{connection: {host: 'tcp://192.0.2.1:1'}, execution: {host: {Binds: [/:/r]}}}":       "socket is mounted",
		"{connection: {host: 'tcp://192.0.2.1:1'}, execution: {host: {Binds: [/srv:/r]}}}":    "without TLS",
		"{connection: {host: 'tcp://192.0.2.1:1', cacert: x}, execution: {image: x}}":         "",
		"{connection: {host: 'tcp://127.0.0.1:1'}, execution: {image: x}}":                    "",
		"execution: {host: {Privileged: true}}":                                               "is privileged",
		"execution: {host: {NetworkMode: host}}":                                              "shares processes or network",
		"execution: {host: {PidMode: host}}":                                                  "shares processes or network",
	} {
		cfg, err := Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(Warnings(&cfg), "; ")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// FuzzDecode: what is taken is taken again when it is written out, and nothing
// panics.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(full))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := Decode(text)
		if err == nil {
			_ = cfg.Validate()
		}
	})
}
