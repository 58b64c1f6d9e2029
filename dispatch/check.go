package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/pkg/apicall"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/forge"
)

// checker prints what it finds, a line each.
type checker struct {
	out, errs io.Writer
	wrong     int
}

func (c *checker) ok(format string, a ...any) { fmt.Fprintf(c.out, "ok: "+format+"\n", a...) }
func (c *checker) note(format string, a ...any) {
	fmt.Fprintf(c.errs, "dispatch: warning: "+format+"\n", a...)
}
func (c *checker) bad(format string, a ...any) {
	c.wrong++
	fmt.Fprintf(c.errs, "dispatch: "+format+"\n", a...)
}

// check is dispatch check.
func check(ctx context.Context, in *cmdline.Invocation) error {
	c := &checker{out: in.Stdout, errs: in.Stderr}
	return with(ctx, in, func(ctx context.Context, p *parts, e *engine.Engine) error {
		c.all(ctx, p, e, slices.Concat(in.Args, in.Tail))
		if c.wrong > 0 {
			return fmt.Errorf("%d of what was looked at is not as it must be", c.wrong)
		}
		return nil
	})
}

// all looks at what dispatch needs, and at some repositories.
func (c *checker) all(ctx context.Context, p *parts, e *engine.Engine, urls []string) {
	if err := p.nomad.Check(ctx); err != nil {
		c.bad("%s: %v", p.nomad.Name(), err)
	} else {
		c.ok("%s", p.nomad.Name())
		for _, job := range e.Jobs() {
			c.job(ctx, p, job)
		}
	}
	if err := p.repos.Check(ctx); err != nil {
		c.bad("%s: %v", p.repos.Name(), err)
	} else {
		c.ok("%s", p.repos.Name())
	}
	for _, url := range urls {
		c.repo(ctx, p, url)
	}
	s := p.settings
	switch {
	case s.PublicLogs && !s.SignIn.Enabled():
		c.note("nobody can sign in, so that logs and debug lines are shown to everybody, and builds are cancelled, run again and approved on the command line alone")
	case s.PublicLogs:
		c.note("logs and debug lines are shown to everybody (--public-logs)")
	case s.SignIn.Enabled():
		c.ok("people sign in by %s at %s; logs are shown to those who may read the repository", s.SignIn.Kind, s.SignIn.Issuer)
	default:
		c.note("nobody can sign in and logs are not public: scripts can read them with the hook's token")
	}
	if s.Debug.Server == "" {
		c.note("failed builds open no debug session: --debug-server is not given")
	}
}

// job looks at a builder's job.
func (c *checker) job(ctx context.Context, p *parts, job string) {
	k, err := p.nomad.Contract(ctx, job)
	if err != nil {
		c.bad("job %s: %v", job, err)
		return
	}
	for _, problem := range k.Problems {
		c.bad("job %s: %s", job, problem)
	}
	for _, advice := range k.Advice {
		c.note("job %s: %s", job, advice)
	}
	var missing []string
	for _, key := range engine.MetaOptional {
		if !k.Permits(key) {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		c.note("job %s does not permit the meta %s: its builds open no debug session, or less is known of them after a restart", job, strings.Join(missing, ", "))
	}
	if len(k.Problems) == 0 {
		c.ok("job %s", job)
	}
}

// repo looks at a repository's configuration and its forge.
func (c *checker) repo(ctx context.Context, p *parts, url string) {
	r, err := p.repos.Get(ctx, url)
	switch {
	case errors.Is(err, repos.ErrUnknown) && p.file == nil:
		c.bad("repository %s: it is not registered: there is no key %s in Consul", url, repos.Key(url))
		return
	case err != nil:
		c.bad("repository %s: %v", url, err)
		return
	}
	c.ok("repository %s: %d trusted senders, %d bytes of secrets", url, len(r.Trusted), len(r.Inject))
	if r.HookSecret == "" {
		c.note("repository %s: its webhooks are not signed: set hook.secret", url)
	}
	if r.Forge.URL == "" {
		c.note("repository %s: it names no forge: no statuses are sent", url)
		return
	}
	client, err := forge.NewClient(forge.Config{Kind: r.Forge.Kind, URL: r.Forge.URL, AllowHTTP: true, Token: r.Forge.Token, UserAgent: "converge-dispatch/" + cmdline.Version()})
	if err != nil {
		c.bad("repository %s: %v", url, err)
		return
	}
	defer client.Close()
	where, err := forge.Locate(r.Forge.Kind, r.Forge.URL, url)
	if err != nil {
		c.bad("repository %s: %v", url, err)
		return
	}
	if strings.HasPrefix(r.Forge.URL, "http:") && !forge.Loopback(where.Base.Hostname()) {
		c.note("repository %s: the forge's token goes to %s without TLS: whoever is in between can take it", url, where.Base.Host)
	}
	user, err := client.User(ctx)
	var said *apicall.Error
	if errors.As(err, &said) && said.Status == http.StatusForbidden {
		// A token that may set statuses need not say whose it is.
		user.Login, err = "somebody", nil
	}
	if err != nil {
		c.bad("repository %s: %v", url, err)
		return
	}
	may, err := client.MayRead(ctx, where.Path)
	switch {
	case err != nil:
		c.bad("repository %s: %v", url, err)
	case !may:
		c.bad("repository %s: the forge's token is of %s, who may not read it", url, user.Login)
	default:
		c.ok("forge of %s: statuses are set in the name of %s", url, user.Login)
	}
}
