// Package settings is what dispatch is told by its options and its environment,
// after it was checked. It opens no connection.
package settings

import (
	"net/url"
	"time"
)

// Settings is one start's. Nobody changes it.
type Settings struct {
	// PublicURL is where people reach dispatch, without a slash at the end; it
	// may have a path.
	PublicURL *url.URL
	Listen    string
	// MetricsListen is where /metrics is, or "".
	MetricsListen string
	// StatusContext begins the context of statuses: StatusContext FLAVOR.
	StatusContext string
	// Jobs are the flavours by the parameterized job that builds them; nil lets
	// every well-formed flavour go to the job DefaultJob.
	Jobs map[string]string
	// StateDir keeps the outbox, the archive and what waits for approval.
	StateDir string
	// Keep is how long logs are archived, KeepBytes how much of them.
	Keep      time.Duration
	KeepBytes int64
	// PublicLogs shows logs and debug lines to everybody.
	PublicLogs bool
	SignIn     SignIn
	Nomad      Nomad
	Consul     Consul
	// Repositories is a YAML file in place of Consul, or "".
	Repositories string
	Debug        Debug
}

// DefaultJob is the job for flavours that no list names.
const DefaultJob = "builder"

// SignIn is how people sign in. The zero value lets nobody.
type SignIn struct {
	// Kind is oidc, gitea, forgejo, github or gitlab, or "".
	Kind string
	// Issuer is the forge's or issuer's URL.
	Issuer                 string
	ClientID, ClientSecret string
}

// Enabled reports whether people can sign in.
func (s SignIn) Enabled() bool { return s.Kind != "" }

// Nomad is how Nomad is reached.
type Nomad struct {
	Address, Namespace, Region, Token string
	CACert, ClientCert, ClientKey     string
}

// Consul is how Consul is reached.
type Consul struct {
	Address, Token                string
	CACert, ClientCert, ClientKey string
}

// Debug is how failed builds become sessions.
type Debug struct {
	// Server is the rendezvous server's ws or wss URL, "" for no sessions.
	Server string
	// Token is what agents show to it, or "".
	Token string
	// For is how long a session lasts at most.
	For time.Duration
}
