package main

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/files"
)

const (
	// maxPEM is how large a file of certificates may be, in bytes.
	maxPEM = 1 << 20
	// leastKeep and mostKeep are of --keep-size, in bytes.
	leastKeep, mostKeep = 1 << 20, 1 << 46
	// pathLetters are what a path is made of that is the same to browsers, proxies
	// and the pattern of a route.
	pathLetters = "/._~-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// env are an option's variables: those of others first, which Albatros reads, too.
func env(name string, others ...string) []string {
	return append(others, cmdline.EnvVars("dispatch", name)...)
}

// text makes an option.
func text(category, name, usage, value string, others ...string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Category: category, Usage: usage, Value: value, EnvVars: env(name, others...)}
}

// secret makes an option that may be @FILE.
func secret(category, name, usage string, others ...string) *cli.StringFlag {
	f := cmdline.SecretFlag("dispatch", name, usage)
	f.Category, f.EnvVars = category, env(name, others...)
	return f
}

func flags() []cli.Flag {
	const n, c, s, d, l = "Nomad", "Repositories", "Signing in", "Debug sessions", "What is kept"
	all := []cli.Flag{
		text("", "url", "public `URL` of dispatch, for the links of statuses", "", "ALBATROS_URL"),
		text("", "listen", "`ADDRESS` to listen on", ":8080"),
		text("", "metrics-listen", "`ADDRESS` for /metrics, /healthz and /readyz alone, such as 127.0.0.1:9100", ""),
		text("", "status-context", "`NAME` that statuses begin with, before the flavour", "Albatros"),
		&cli.StringSliceFlag{Name: "flavor", Usage: "`NAME=JOB`: a flavour that is built, and by which parameterized job; without any, every flavour is built by the job " + settings.DefaultJob, EnvVars: env("flavor")},
		text(n, "nomad-addr", "`URL` of Nomad", "", "NOMAD_ADDR"),
		text(n, "nomad-namespace", "`NAMESPACE` of the builders' jobs", "ci", "NOMAD_NAMESPACE"),
		text(n, "nomad-region", "`REGION`, where it is not the agent's own", "", "NOMAD_REGION"),
		secret(n, "nomad-token", "`TOKEN` with which Nomad lets dispatch in", "NOMAD_TOKEN"),
		text(n, "nomad-ca", "`FILE` of the certificates that Nomad's is checked with", "", "NOMAD_CACERT"),
		text(n, "nomad-cert", "`FILE` of the certificate that Nomad is shown", "", "NOMAD_CLIENT_CERT"),
		text(n, "nomad-key", "`FILE` of its key", "", "NOMAD_CLIENT_KEY"),
		text(c, "repositories", "YAML `FILE` of the repositories, in place of Consul", ""),
		text(c, "consul-addr", "`URL` of Consul", "", "CONSUL_HTTP_ADDR"),
		secret(c, "consul-token", "`TOKEN` with which Consul lets dispatch in", "CONSUL_HTTP_TOKEN"),
		text(c, "consul-ca", "`FILE` of the certificates that Consul's is checked with", "", "CONSUL_CACERT"),
		text(c, "consul-cert", "`FILE` of the certificate that Consul is shown", "", "CONSUL_CLIENT_CERT"),
		text(c, "consul-key", "`FILE` of its key", "", "CONSUL_CLIENT_KEY"),
		text(s, "sign-in", "`KIND` of who knows the people: gitea, forgejo, github, gitlab or oidc", ""),
		text(s, "sign-in-url", "`URL` of that forge or issuer", ""),
		text(s, "sign-in-client", "`ID` of dispatch there", ""),
		secret(s, "sign-in-secret", "`SECRET` of dispatch there"),
		&cli.BoolFlag{Name: "public-logs", Category: s, DefaultText: "where nobody can sign in", Usage: "show logs and debug lines to everybody", EnvVars: env("public-logs")},
		text(d, "debug-server", "ws or wss `URL` of the rendezvous server that failed builds call", ""),
		secret(d, "debug-token", "`TOKEN` with which that server lets agents in"),
		&cli.DurationFlag{Name: "debug-for", Category: d, Value: 30 * time.Minute, Usage: "`DURATION` of a session at most", EnvVars: env("debug-for")},
		&cli.StringFlag{Name: "state-dir", Category: l, DefaultText: "converge-dispatch in /var/lib or the user's own state", Usage: "`DIR` for logs, and for what waits", EnvVars: append(env("state-dir"), "STATE_DIRECTORY")},
		&cli.DurationFlag{Name: "keep", Category: l, Value: 30 * 24 * time.Hour, Usage: "`DURATION` for which logs are kept", EnvVars: env("keep")},
		text(l, "keep-size", "`SIZE` of what is kept at most", "4GiB"),
	}
	return append(all, cmdline.LogFlags("dispatch")...)
}

// load makes the settings. What is wrong is a usage error that names the
// variable.
func load(in *cmdline.Invocation) (*settings.Settings, error) {
	s := &settings.Settings{
		Listen: in.String("listen"), MetricsListen: in.String("metrics-listen"), StatusContext: strings.TrimSpace(in.String("status-context")),
		StateDir: in.String("state-dir"), Keep: in.Duration("keep"), Repositories: in.String("repositories"),
		Nomad: settings.Nomad{
			Address: in.String("nomad-addr"), Namespace: in.String("nomad-namespace"), Region: in.String("nomad-region"),
			CACert: in.String("nomad-ca"), ClientCert: in.String("nomad-cert"), ClientKey: in.String("nomad-key"),
		},
		Consul: settings.Consul{
			Address: in.String("consul-addr"), CACert: in.String("consul-ca"), ClientCert: in.String("consul-cert"), ClientKey: in.String("consul-key"),
		},
		SignIn: settings.SignIn{Kind: in.String("sign-in"), Issuer: strings.TrimRight(in.String("sign-in-url"), "/"), ClientID: in.String("sign-in-client")},
		Debug:  settings.Debug{Server: strings.TrimRight(in.String("debug-server"), "/"), For: in.Duration("debug-for")},
	}
	var err error
	if s.PublicURL, err = address(in.String("url"), "ALBATROS_URL", "--url"); err != nil {
		return nil, err
	}
	if strings.Trim(s.PublicURL.Path, pathLetters) != "" {
		return nil, cmdline.Usagef("the path of ALBATROS_URL has a character that is not one of letters, digits and /._~-: give one without it")
	}
	if s.StatusContext == "" {
		return nil, cmdline.Usagef("--status-context is empty: give the name that statuses begin with")
	}
	if _, err = address(s.Nomad.Address, "NOMAD_ADDR", "--nomad-addr"); err != nil {
		return nil, err
	}
	if s.Repositories == "" {
		if s.Consul.Address != "" && !strings.Contains(s.Consul.Address, "://") { // as Consul's own programs take it
			s.Consul.Address = "http://" + s.Consul.Address
		}
		if _, err = address(s.Consul.Address, "CONSUL_HTTP_ADDR", "--consul-addr (or --repositories FILE)"); err != nil {
			return nil, err
		}
	}
	if err := loadFiles(s); err != nil {
		return nil, err
	}
	for name, into := range map[string]*string{
		"nomad-token": &s.Nomad.Token, "consul-token": &s.Consul.Token, "sign-in-secret": &s.SignIn.ClientSecret, "debug-token": &s.Debug.Token,
	} {
		if *into, err = cmdline.Secret(in, name); err != nil {
			return nil, cmdline.Usagef("%w", err)
		}
	}
	if s.Jobs, err = jobs(in.StringSlice("flavor")); err != nil {
		return nil, err
	}
	if err := loadSignIn(in, s); err != nil {
		return nil, err
	}
	if s.Debug.Server != "" {
		if u, err := url.Parse(s.Debug.Server); err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
			return nil, cmdline.Usagef("--debug-server is no ws or wss URL: give one such as wss://converge.example.com")
		}
	}
	if s.Debug.For < time.Minute || s.Debug.For > 24*time.Hour || s.Keep < time.Hour {
		return nil, cmdline.Usagef("--debug-for must be from 1m to 24h, and --keep 1h at least")
	}
	size, err := cmdline.Bytes[int64](in, "keep-size", leastKeep, mostKeep)
	if err != nil {
		return nil, err
	}
	s.KeepBytes = size
	if s.StateDir == "" {
		s.StateDir = stateDir()
	}
	if s.StateDir, err = filepath.Abs(s.StateDir); err != nil {
		return nil, cmdline.Usagef("--state-dir cannot be used: %w", err)
	}
	return s, nil
}

// address reads an http or https URL that must be there.
func address(value, variable, option string) (*url.URL, error) {
	if value == "" {
		return nil, cmdline.Usagef("%s is not set: give it, or %s", variable, option)
	}
	u, err := url.Parse(strings.TrimRight(value, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, cmdline.Usagef("%s is no http or https URL: give one such as https://ci.example.com", variable)
	}
	return u, nil
}

// loadFiles checks that the files of TLS are there, and come in pairs.
func loadFiles(s *settings.Settings) error {
	for _, f := range []struct{ variable, path string }{
		{"NOMAD_CACERT", s.Nomad.CACert}, {"NOMAD_CLIENT_CERT", s.Nomad.ClientCert}, {"NOMAD_CLIENT_KEY", s.Nomad.ClientKey},
		{"CONSUL_CACERT", s.Consul.CACert}, {"CONSUL_CLIENT_CERT", s.Consul.ClientCert}, {"CONSUL_CLIENT_KEY", s.Consul.ClientKey},
	} {
		if f.path == "" {
			continue
		}
		if _, err := files.Read(f.path, maxPEM); err != nil {
			return cmdline.Usagef("the file of %s cannot be read: %w", f.variable, err)
		}
	}
	switch {
	case s.Nomad.ClientCert != "" && s.Nomad.ClientKey == "":
		return cmdline.Usagef("NOMAD_CLIENT_KEY is not set, and NOMAD_CLIENT_CERT is: give both")
	case s.Nomad.ClientCert == "" && s.Nomad.ClientKey != "":
		return cmdline.Usagef("NOMAD_CLIENT_CERT is not set, and NOMAD_CLIENT_KEY is: give both")
	case s.Consul.ClientCert != "" && s.Consul.ClientKey == "":
		return cmdline.Usagef("CONSUL_CLIENT_KEY is not set, and CONSUL_CLIENT_CERT is: give both")
	case s.Consul.ClientCert == "" && s.Consul.ClientKey != "":
		return cmdline.Usagef("CONSUL_CLIENT_CERT is not set, and CONSUL_CLIENT_KEY is: give both")
	}
	return nil
}

func jobs(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	all := map[string]string{}
	for _, item := range list {
		name, job, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok || !repos.IsFlavor(name) || job == "" || strings.ContainsAny(job, " \t\r\n\x00") || len(job) > 128 {
			return nil, cmdline.Usagef("--flavor %.40q is not NAME=JOB, such as default=builder", item)
		}
		if _, twice := all[name]; twice {
			return nil, cmdline.Usagef("--flavor names %s twice", name)
		}
		all[name] = job
	}
	return all, nil
}

func loadSignIn(in *cmdline.Invocation, s *settings.Settings) error {
	s.PublicLogs = in.Bool("public-logs")
	if s.SignIn.Kind == "" {
		if s.SignIn.Issuer != "" || s.SignIn.ClientID != "" || s.SignIn.ClientSecret != "" {
			return cmdline.Usagef("--sign-in is missing: give gitea, forgejo, github, gitlab or oidc")
		}
		if !in.IsSet("public-logs") { // else nobody could read a log
			s.PublicLogs = true
		}
		return nil
	}
	if !slices.Contains([]string{"gitea", "forgejo", "github", "gitlab", "oidc"}, s.SignIn.Kind) {
		return cmdline.Usagef("--sign-in is %q: give gitea, forgejo, github, gitlab or oidc", s.SignIn.Kind)
	}
	if _, err := address(s.SignIn.Issuer, "CONVERGE_DISPATCH_SIGN_IN_URL", "--sign-in-url"); err != nil {
		return err
	}
	if s.SignIn.ClientID == "" || s.SignIn.ClientSecret == "" {
		return cmdline.Usagef("--sign-in needs --sign-in-client and --sign-in-secret, which the forge gives for an OAuth2 application")
	}
	return nil
}

// stateDir is where state is kept that nobody has named a folder for.
func stateDir() string {
	const name = "converge-dispatch"
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib", name)
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, name)
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", name)
	}
	return filepath.Join(os.TempDir(), name)
}
