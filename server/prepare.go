package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"example.com/converge/pkg/certs"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/debug"
	"example.com/converge/server/internal/front"
	"example.com/converge/server/internal/limits"
	"example.com/converge/server/internal/ticket"
	"example.com/converge/server/internal/web"
)

// prepared is what the options and the files that they name come to, before
// anything is listened on or written: what check-config looks at.
type prepared struct {
	address       string
	keepAlive     time.Duration
	window, drain time.Duration
	origins       *web.Origins
	prefix        string
	allowed       []string // origins
	pages         *web.Handler
	pair          *certs.Pair    // nil without TLS
	tickets       *ticket.Office // nil without a state key
	most          limits.Config
	guard         *access.Guard
	debugAddress  string // "" for none
	auditLog      string // "" for none
	sessions      bool

	// reloaded is told when the files of access were read again; it may be set
	// until the guard runs.
	reloaded func(error)
}

// prepare reads the options and the files. former is the guard of the server that
// is running, to see whether it could be another; nil at the start.
func prepare(in *cmdline.Invocation, former *access.Guard, log *slog.Logger) (*prepared, error) {
	p := &prepared{address: in.String("listen"), auditLog: in.String("audit-log"), sessions: in.Bool("sessions")}
	if err := p.times(in); err != nil {
		return nil, err
	}
	if err := p.web(in, log); err != nil {
		return nil, err
	}
	if err := p.secrets(in, log); err != nil {
		return nil, err
	}
	return p, p.access(in, former, log)
}

// times reads the address and the durations.
func (p *prepared) times(in *cmdline.Invocation) error {
	if err := checkAddress(p.address); err != nil {
		return err
	}
	p.keepAlive, p.window, p.drain = in.Duration("keepalive"), in.Duration("resume-window"), in.Duration("drain")
	switch {
	case p.keepAlive < time.Second || p.keepAlive > time.Hour:
		return cmdline.Usagef("--keepalive is %v: it must be between a second and an hour", p.keepAlive)
	case p.window < 0 || p.window > longestWindow:
		return cmdline.Usagef("--resume-window is %v: it must be between 0 and an hour", p.window)
	case p.drain < 0 || p.drain > longestDrain:
		return cmdline.Usagef("--drain is %v: it must be between 0 and an hour", p.drain)
	}
	return nil
}

// web reads what pages and their URLs come from.
func (p *prepared) web(in *cmdline.Invocation, log *slog.Logger) (err error) {
	if p.origins, err = web.NewOrigins(in.String("public-url"), in.StringSlice("trusted-proxy")); err != nil {
		return cmdline.Usagef("%v", err)
	}
	// A public URL holds for every request, so an empty one tells its path.
	p.prefix = p.origins.Of(new(http.Request)).Prefix
	if err := checkPrefix(p.prefix); err != nil {
		return err
	}
	if p.allowed, err = front.ParseOrigins(in.StringSlice("allow-origin")); err != nil {
		return cmdline.Usagef("--allow-origin: %v", err)
	}
	p.pages, err = web.New(web.Config{
		Downloads: in.String("downloads"), Static: in.String("static"), Origins: p.origins, Logger: log,
	})
	return err
}

// secrets reads the certificate and the state key.
func (p *prepared) secrets(in *cmdline.Invocation, log *slog.Logger) (err error) {
	cert, key := in.String("tls-cert"), in.String("tls-key")
	if (cert == "") != (key == "") {
		return cmdline.Usagef("--tls-cert and --tls-key go together")
	}
	if cert != "" {
		if p.pair, err = certs.Load(cert, key, log); err != nil {
			return err
		}
	}
	if file := in.String("state-key"); file != "" {
		secret, err := ticket.LoadKey(file)
		if err != nil {
			return err
		}
		p.tickets = ticket.New(secret, p.window)
	}
	return nil
}

// access reads who may use the server, how much, and who is told.
func (p *prepared) access(in *cmdline.Invocation, former *access.Guard, log *slog.Logger) (err error) {
	if p.most, err = readLimits(in); err != nil {
		return err
	}
	p.debugAddress = in.String("debug-listen")
	switch {
	case p.debugAddress != "":
		if err := debug.CheckAddress(p.debugAddress, in.Bool("debug-public")); err != nil {
			return cmdline.Usagef("%v", err)
		}
	case in.Bool("debug-public"):
		return cmdline.Usagef("--debug-public goes with --debug-listen")
	}
	if err := notEmpty(in); err != nil {
		return err
	}
	if p.sessions && in.String("tokens") == "" && in.String("policy") == "" {
		return cmdline.Usagef("--sessions goes with --tokens or --policy, which say who is a viewer")
	}
	p.guard, err = openGuard(in, former, func(err error) {
		if p.reloaded != nil {
			p.reloaded(err)
		}
	}, log)
	return err
}

// tls is what the server speaks; nil is plain HTTP.
func (p *prepared) tls() *tls.Config {
	if p.pair == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: p.pair.GetCertificate}
}

// check is what check-config asks besides: an address that is there twice, and
// a log that cannot be written.
func (p *prepared) check() error {
	if p.debugAddress != "" && p.debugAddress == p.address {
		return errors.New("--listen and --debug-listen are the same address")
	}
	if p.auditLog == "" || p.auditLog == "-" {
		return nil
	}
	if err := writable(p.auditLog); err != nil {
		return fmt.Errorf("cannot write the audit log: %w", err)
	}
	return nil
}
