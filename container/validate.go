package container

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.com/converge/container/internal/engine"
)

// ParseConfig reads a configuration of JSON. Unknown keys are refused; the
// result is validated by New.
func ParseConfig(data []byte) (Config, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var cfg Config
	if err := d.Decode(&cfg); err != nil {
		return Config{}, fmt.Errorf("read the container configuration: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("read the container configuration: something follows it: one object is all there may be")
	}
	return cfg, nil
}

// Validate says in a sentence what does not fit together.
func (c *Config) Validate() error {
	e := &c.Execution
	image, existing := e.image() != "", e.Existing != ""
	_, byLabel := strings.CutPrefix(e.Existing, "label=")
	switch {
	case !image && !existing:
		return errors.New("no image is given: say which one to run, or name an existing container")
	case image && existing:
		return errors.New("both an image and an existing container are given: choose one")
	case e.Image != "" && e.Container.Image != "" && e.Image != e.Container.Image:
		return fmt.Errorf("two images are given, %s and %s: choose one", e.Image, e.Container.Image)
	case strings.ContainsAny(e.image(), "?#% \t\r\n") || strings.HasPrefix(e.image(), "-"):
		return fmt.Errorf("%q is not the name of an image", e.image())
	case byLabel && (e.Existing == "label=" || strings.HasPrefix(e.Existing, "label==")):
		return errors.New("the label of the existing container has no name: write label=NAME=VALUE")
	case !byLabel && strings.ContainsAny(e.Existing, "/?#% \t\r\n="):
		return fmt.Errorf("%q is not the name of a container", e.Existing)
	}
	switch e.Mode {
	case "", ModeConnection, ModeSession:
	default:
		return fmt.Errorf("mode %q is not known: it is %s or %s", e.Mode, ModeConnection, ModeSession)
	}
	switch e.ImagePullPolicy {
	case "", PullAlways, PullIfNotPresent, PullNever:
	default:
		return fmt.Errorf("image pull policy %q is not known: it is %s, %s or %s", e.ImagePullPolicy, PullAlways, PullIfNotPresent, PullNever)
	}
	switch p := e.Platform; {
	case p.OS == "" && (p.Architecture != "" || p.Variant != ""):
		return errors.New("the platform has no os: write linux beside its architecture")
	case p.OSVersion != "" || len(p.OSFeatures) > 0:
		return errors.New("the platform has an os.version or os.features, by which images of linux do not differ: leave them out")
	}
	restart := e.Host.RestartPolicy.Name
	switch {
	case existing && e.Mode == ModeSession:
		return errors.New("an existing container cannot be used in mode session, which makes one for each session")
	case len(e.IdleCommand) > 0 && len(e.IdleProgram) > 0:
		return errors.New("both idleCommand and idleProgram are given, which are the same: choose one")
	case !existing && e.mode() == ModeConnection && e.DisableAgent && len(e.idle()) == 0:
		return errors.New("mode connection without the agent needs an idle command, which keeps the container there")
	case restart != "" && restart != "no" && e.mode() == ModeSession:
		return fmt.Errorf("restart policy %q does not fit mode session: the session would never end", restart)
	case restart != "" && restart != "no":
		return fmt.Errorf("restart policy %q does not fit: a container ends with its connection", restart)
	case e.Guest != nil && e.GuestFile != "":
		return errors.New("both a source and a file of the guest are given: choose one")
	case e.DisableAgent && (e.Guest != nil || e.GuestFile != "" || e.AgentPath != ""):
		return errors.New("the agent is disabled, and something is said of it: choose one")
	case e.AgentPath != "" && !strings.HasPrefix(e.AgentPath, "/"):
		return fmt.Errorf("the agent's path %q does not begin with /", e.AgentPath)
	}
	if _, given := e.Subsystems["sftp"]; given && e.ReadOnlySFTP {
		return errors.New("a read-only sftp is asked for, and subsystem sftp is given, of which that is not known: choose one")
	}
	for name, line := range e.Subsystems {
		if name == "" || len(strings.Fields(line)) == 0 {
			return fmt.Errorf("subsystem %q has no program", name)
		}
	}
	for _, list := range [][]string{e.Cmd, e.idle(), e.ShellCommand} {
		if list != nil && (len(list) == 0 || list[0] == "") {
			return errors.New("a command is given without a program")
		}
	}
	t := c.Timeouts
	for _, d := range []Duration{t.ContainerStart, t.ContainerStop, t.CommandStart, t.Signal, t.Window, t.HTTP} {
		if d < 0 {
			return fmt.Errorf("timeout %v is negative", time.Duration(d))
		}
	}
	connection := c.Connection.resolved()
	_, err := connection.tls()
	return err
}

// image returns the image, wherever it was given.
func (e *ExecutionConfig) image() string {
	if e.Image != "" {
		return e.Image
	}
	return e.Container.Image
}

func (e *ExecutionConfig) mode() Mode {
	if e.Mode == "" {
		return ModeConnection
	}
	return e.Mode
}

func (e *ExecutionConfig) idle() []string {
	if len(e.IdleCommand) > 0 {
		return e.IdleCommand
	}
	return e.IdleProgram
}

// engine returns a client for the engine.
func (c *Config) engine(requests, failures Counter) (*engine.Client, error) {
	connection := c.Connection.resolved()
	config, err := connection.tls()
	if err != nil {
		return nil, err
	}
	opts := engine.Options{Host: connection.Host, TLS: config, Timeout: c.Timeouts.HTTP.or(15 * time.Second)}
	if requests != nil {
		opts.Request = requests.Inc
	}
	if failures != nil {
		opts.Failure = failures.Inc
	}
	return engine.New(opts)
}

// resolved is the connection with what Docker's variables say of it, as the docker
// command takes them: the host where the configuration names none, and TLS where it
// says nothing of that and the host is no socket.
func (c ConnectionConfig) resolved() ConnectionConfig {
	c.Host = cmp.Or(c.Host, os.Getenv("DOCKER_HOST"))
	dir := os.Getenv("DOCKER_CERT_PATH")
	switch {
	case c.Host == "" || strings.HasPrefix(c.Host, "unix:") || c.CACert != "" || c.Cert != "" || c.Key != "":
		return c
	case dir == "" && os.Getenv("DOCKER_TLS_VERIFY") == "":
		return c
	case dir == "":
		home, err := os.UserHomeDir()
		if err != nil {
			home = string(filepath.Separator)
		}
		dir = filepath.Join(home, ".docker")
	}
	c.CACert, c.Cert, c.Key = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return c
}

// tls returns what secures the connection; nil if nothing is given.
func (c *ConnectionConfig) tls() (*tls.Config, error) {
	if c.CACert == "" && c.Cert == "" && c.Key == "" {
		return nil, nil
	}
	if c.CACert == "" || (c.Cert == "") != (c.Key == "") {
		return nil, errors.New("TLS to the engine needs cacert, and cert and key both or neither")
	}
	authority, err := pemText(c.CACert)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(authority) {
		return nil, errors.New("read the engine's cacert: there is no certificate in it")
	}
	if c.Cert == "" {
		return config, nil
	}
	cert, err := pemText(c.Cert)
	if err != nil {
		return nil, err
	}
	key, err := pemText(c.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read the engine's cert and key: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// pemText returns a PEM text, or the file that is named.
func pemText(s string) ([]byte, error) {
	if strings.Contains(s, "-----BEGIN") {
		return []byte(s), nil
	}
	text, err := os.ReadFile(s)
	if err != nil {
		return nil, fmt.Errorf("read TLS for the engine, as the configuration, DOCKER_CERT_PATH or DOCKER_TLS_VERIFY has it: %w", err)
	}
	return text, nil
}
