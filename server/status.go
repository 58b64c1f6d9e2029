package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/transport"
	"example.com/converge/server/internal/config"
	"example.com/converge/server/internal/debug"
)

const (
	// statusWait bounds the question of server status.
	statusWait = 10 * time.Second
	// maxStatus is the longest answer, in bytes.
	maxStatus = 64 << 20
)

// status is server status: it asks the second listener of a server on this
// machine.
func status() cmdline.Program {
	return cmdline.Program{
		Name: "status", ArgsUsage: " ",
		Usage: "says how the server on this machine stands, and who is connected",
		Description: "It asks the listener of --debug-listen, and exits 1 where there is none, or where the\n" +
			"server takes no newcomers.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "debug-listen", Usage: "the server's `ADDRESS` of that name", EnvVars: cmdline.EnvVars("server", "debug-listen")},
			&cli.StringFlag{Name: "config", Usage: "the server's `FILE` of that name, to read the address from", EnvVars: cmdline.EnvVars("server", "config")},
			&cli.BoolFlag{Name: "json", Usage: "print all there is as JSON"},
		},
		Run: runStatus,
	}
}

func runStatus(ctx context.Context, in *cmdline.Invocation) error {
	if len(in.Args) > 0 || len(in.Tail) > 0 {
		return cmdline.Usagef("server status takes no argument, only options")
	}
	address, err := statusAddress(in)
	if err != nil {
		return err
	}
	text, err := askStatus(ctx, address)
	if err != nil {
		return err
	}
	var s debug.Status
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("%s is no Converge server's --debug-listen: %w", address, err)
	}
	if in.Bool("json") {
		_, err = in.Stdout.Write(text)
	} else {
		err = writeStatus(in.Stdout, s)
	}
	switch {
	case err != nil:
		return fmt.Errorf("cannot write the status: %w", err)
	case !s.Ready:
		return cmdline.Exit(cmdline.ExitFailure, nil)
	}
	return nil
}

// statusAddress is where to ask: this machine's own address of the listener.
func statusAddress(in *cmdline.Invocation) (string, error) {
	address := in.String("debug-listen")
	if path := in.String("config"); address == "" && path != "" {
		var options []cmdline.Option
		for _, f := range program().Flags {
			options = append(options, cmdline.Option{Name: f.Names()[0], List: isList(f)})
		}
		settings, err := config.Load(path, settingKeys(options))
		if err != nil {
			return "", err
		}
		for _, s := range settings {
			if s.Name == "debug-listen" {
				address = s.Value
			}
		}
	}
	if address == "" {
		return "", cmdline.Usagef("say where the server listens for this: --debug-listen ADDRESS or --config FILE, as it has them itself")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" || port == "0" {
		return "", cmdline.Usagef("the address %q of --debug-listen is not HOST:PORT, such as 127.0.0.1:6060", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port), nil
}

func isList(f cli.Flag) bool {
	s, ok := f.(cli.DocGenerationSliceFlag)
	return ok && s.IsSliceFlag()
}

// askStatus fetches the status.
func askStatus(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+debug.StatusPath, nil)
	if err != nil {
		return nil, cmdline.Usagef("the address %q of --debug-listen cannot be asked: %v", address, err)
	}
	request.Host = "localhost" // whatever the address is called: no other name is answered
	// Not through a proxy: it is this machine that is asked.
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the server: is it running with --debug-listen %s? %w", address, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxStatus+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the server's answer: %w", err)
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the server at %s says %s: %s", address, answer.Status, transport.Printable(strings.TrimSpace(string(text[:min(len(text), 200)]))))
	case len(text) > maxStatus:
		return nil, errors.New("the server's answer is longer than it can be")
	}
	return text, nil
}

// writeStatus lays a status out for people.
func writeStatus(out io.Writer, s debug.Status) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(name, format string, a ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", a...) }
	line("server", "%s", s.Version)
	state := "ready"
	if !s.Ready {
		state = "ending: no newcomers"
	}
	line("state", "%s, up %s", state, span(s.Now.Sub(s.Started)))
	how := "plain HTTP"
	if s.TLS {
		how = "TLS"
	}
	line("listening", "%s, %s", s.Address, how)
	if end := s.CertificateEnd; end != nil {
		line("certificate", "ends %s, in %s", end.Format(time.DateTime), span(end.Sub(s.Now)))
	}
	line("access", "%s", s.Access)
	if s.Problem == "" {
		line("files", "read %s ago", span(s.Now.Sub(s.Loaded)))
	} else {
		line("files", "as of %s ago, for now they cannot be used: %s", span(s.Now.Sub(s.Loaded)), transport.Printable(s.Problem))
	}
	limit := "without limit"
	if s.Limit > 0 {
		limit = fmt.Sprintf("of %d", s.Limit)
	}
	line("connections", "%d %s", s.Open, limit)
	line("agents", "%d, with %d connections parked; %d ids kept for those away", len(s.Agents), s.Parked, s.Kept)
	line("clients", "%d", len(s.Clients))
	line("moved", "%s to agents, %s to clients", bytesOf(s.ToAgent), bytesOf(s.ToClient))
	line("memory", "%s, %d goroutines", bytesOf(int64(s.Memory)), s.Goroutines)
	if s.Viewers > 0 {
		line("viewers", "%d", s.Viewers)
	}
	if s.AuditLost > 0 {
		line("audit log", "lacks %d events", s.AuditLost)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(s.Agents) > 0 {
		fmt.Fprint(w, "\nAGENT\tSTATE\tFROM\tFOR\tENDS\tSOFTWARE\n")
		for _, a := range s.Agents {
			ends := "-"
			if a.Expires != nil {
				ends = "in " + span(a.Expires.Sub(s.Now))
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", a.ID, orDash(a.State), a.Remote, span(s.Now.Sub(a.Since)), ends, orDash(transport.Printable(a.Software)))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if len(s.Clients) > 0 {
		fmt.Fprint(w, "\nSESSION\tAGENT\tFROM\tFOR\tTO AGENT\tTO CLIENT\tBEGAN AS\n")
		for _, c := range s.Clients {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Session, c.ID, c.Remote, span(s.Now.Sub(c.Since)), bytesOf(c.ToAgent), bytesOf(c.ToClient), orDash(c.First))
		}
	}
	return w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// span is a duration to the second, or the minute where it is long.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Hour:
		return d.Truncate(time.Second).String()
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func bytesOf(n int64) string {
	for _, u := range []struct {
		shift int
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(int64(1)<<u.shift), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
