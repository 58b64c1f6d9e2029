package container

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	dockercontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is all that a connection's containers are made from. The zero value
// with an Image, or with Existing, is usable; New refuses what does not fit
// together. It is not changed, and may serve many connections at once.
type Config struct {
	// Connection says how to reach the engine.
	Connection ConnectionConfig `json:"connection"`
	// Execution says what runs.
	Execution ExecutionConfig `json:"execution"`
	// Timeouts bound what is waited for.
	Timeouts TimeoutConfig `json:"timeouts"`
}

// ConnectionConfig says how to reach the engine.
type ConnectionConfig struct {
	// Host is unix://PATH or tcp://HOST:PORT; "" is the variable DOCKER_HOST,
	// and without it unix:///var/run/docker.sock.
	Host string `json:"host"`
	// CACert, Cert and Key are PEM texts, or names of files that hold them:
	// the engine's authority and this side's certificate, for tcp. Without any
	// of them, DOCKER_CERT_PATH or DOCKER_TLS_VERIFY says that TLS is spoken,
	// with the files ca.pem, cert.pem and key.pem in DOCKER_CERT_PATH, or in
	// ~/.docker. It is always verified.
	CACert string `json:"cacert"`
	Cert   string `json:"cert"`
	Key    string `json:"key"`
}

// Mode says what a container is made for.
type Mode string

// Modes.
const (
	// ModeConnection is one container for a connection, in which each session
	// is a program beside an idle process 1.
	ModeConnection Mode = "connection"
	// ModeSession is one container for each session, whose process 1 is the
	// session's program.
	ModeSession Mode = "session"
)

// PullPolicy says when an image is fetched from its registry.
type PullPolicy string

// Pull policies.
const (
	PullAlways       PullPolicy = "Always"
	PullIfNotPresent PullPolicy = "IfNotPresent"
	PullNever        PullPolicy = "Never"
)

// Names of the guest agent that are looked for in an image.
const (
	// DefaultAgentPath is where Converge's images have theirs.
	DefaultAgentPath = "/usr/bin/converge-guest"
	// ContainerSSHAgentPath is where images made for ContainerSSH have it.
	ContainerSSHAgentPath = "/usr/bin/containerssh-agent"
)

// GuestSource returns the path, on this machine, of an executable for the
// platform (Go's names) that knows the guest's modes and needs no library. It
// may be called concurrently.
type GuestSource func(ctx context.Context, os, arch string) (path string, err error)

// ExecutionConfig says what runs, and how. A field named like one of the
// engine's API is passed through to it.
type ExecutionConfig struct {
	// Image is the image to run; it is needed unless Existing is given. With
	// neither tag nor digest its tag is latest.
	Image string `json:"image"`
	// Existing is a container that runs already and is neither started nor
	// removed: its name, its id, or label=NAME or label=NAME=VALUE, which one
	// container has to have.
	Existing string `json:"existing"`
	// Container, Host, Network and Platform are the engine's settings.
	Container dockercontainer.Config     `json:"container"`
	Host      dockercontainer.HostConfig `json:"host"`
	Network   network.NetworkingConfig   `json:"network"`
	Platform  v1.Platform                `json:"platform"`
	// Unhardened leaves Host as it is. Otherwise there are no new privileges, at
	// most 4096 processes, and none of the capabilities AUDIT_WRITE, MKNOD and
	// NET_RAW, unless Host says something else of the same.
	Unhardened bool `json:"unhardened"`
	// Mode is ModeConnection unless given.
	Mode Mode `json:"mode"`
	// Cmd is what a shell is in ModeSession; without it the image's own.
	Cmd []string `json:"cmd"`
	// IdleCommand is process 1 in ModeConnection; nil is the guest agent,
	// which waits for INT or TERM.
	IdleCommand []string `json:"idleCommand"`
	// IdleProgram is an older name of IdleCommand.
	IdleProgram []string `json:"idleProgram"`
	// ShellCommand is the shell; nil is /bin/bash, and /bin/sh where the image
	// has no bash. In ModeSession it counts only if given.
	ShellCommand []string `json:"shellCommand"`
	// AgentPath is the guest agent in the image; "" is DefaultAgentPath, then
	// ContainerSSHAgentPath.
	AgentPath string `json:"agentPath"`
	// DisableAgent does without: there are no signals then and no forwards,
	// and a program that was left goes on until its container ends.
	DisableAgent bool `json:"disableAgent"`
	// Guest gives the guest agent that is copied into a container whose image
	// has none. GuestFile names it where one platform is all there is.
	Guest     GuestSource `json:"-"`
	GuestFile string      `json:"guestFile"`
	// GuestSFTP are the arguments by which that agent is an sftp server; nil
	// if it is none.
	GuestSFTP []string `json:"guestSFTP"`
	// ReadOnlySFTP has the sftp server change nothing: it gets the argument -R,
	// which OpenSSH's knows. It cannot be had with an sftp in Subsystems.
	ReadOnlySFTP bool `json:"readOnlySFTP"`
	// Subsystems are the programs of the SSH subsystems, as command lines that
	// are split at spaces. "sftp" is the agent's, if it has one, or the usual
	// place of OpenSSH's.
	Subsystems map[string]string `json:"subsystems"`
	// ImagePullPolicy is PullIfNotPresent unless given.
	ImagePullPolicy PullPolicy `json:"imagePullPolicy"`
	// Auth is for the registry.
	Auth *registry.AuthConfig `json:"auth"`
}

// TimeoutConfig bounds what is waited for; 0 is the default.
type TimeoutConfig struct {
	// ContainerStart bounds the making of a container, with the pull. 60 s.
	ContainerStart Duration `json:"containerStart"`
	// ContainerStop bounds its removal. 60 s.
	ContainerStop Duration `json:"containerStop"`
	// CommandStart bounds the start of a program, and how long an engine that
	// does not answer is asked for its status. 60 s.
	CommandStart Duration `json:"commandStart"`
	// Signal bounds the sending of a signal. 60 s.
	Signal Duration `json:"signal"`
	// Window bounds a change of the terminal's size. 60 s.
	Window Duration `json:"window"`
	// HTTP bounds one request that is answered at once. 15 s.
	HTTP Duration `json:"http"`
}

// Duration is a time.Duration that is written as a text such as 60s; a number
// is nanoseconds.
type Duration time.Duration

// UnmarshalJSON reads a text or a number.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		var n int64
		if err := json.Unmarshal(data, &n); err != nil {
			return fmt.Errorf("%s is not a duration: write one such as 60s", data)
		}
		*d = Duration(n)
		return nil
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration: write one such as 60s", text)
	}
	*d = Duration(parsed)
	return nil
}

// MarshalJSON writes a text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// or returns the duration, or a default for 0.
func (d Duration) or(def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return time.Duration(d)
}
