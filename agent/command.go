package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/signal"
	"path"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"example.com/converge/agent/internal/announce"
	"example.com/converge/agent/internal/keys"
	"example.com/converge/agent/internal/link"
	"example.com/converge/agent/internal/session"
	"example.com/converge/agent/internal/sshd"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/expiry"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/resume"
	"example.com/converge/pkg/transport"
)

func program() cmdline.Program {
	timing := expiry.DefaultConfig()
	flags := []cli.Flag{
		&cli.StringFlag{Name: "id", Usage: "`ID` to register as, where the URL has none; a random one by default"},
		&cli.StringFlag{Name: "id-conflict", Value: "new", Usage: "`RULE` for an id that is taken: new takes another one, fail ends the agent"},
		&cli.StringFlag{Name: "user", Value: "abc", Usage: "log-in `NAME`"},
		&cli.StringFlag{Name: "host-key", Usage: "private key `FILE` of the SSH server; a fresh key by default"},
		&cli.StringFlag{Name: "shell", Usage: "`PROGRAM` to run as a shell; $SHELL by default, and in a container bash or sh"},
		&cli.StringSliceFlag{Name: "accept-env", Usage: "`NAME` or pattern of environment variables that a client may set"},
		&cli.BoolFlag{Name: "no-forwarding", Usage: "refuse all forwarding: TCP, Unix sockets and key agents"},
		&cli.BoolFlag{Name: "no-local-forwarding", Usage: "refuse TCP connections that go out from here (ssh -L, -D, -W)"},
		&cli.BoolFlag{Name: "no-remote-forwarding", Usage: "refuse TCP ports to listen at here (ssh -R)"},
		&cli.BoolFlag{Name: "no-socket-forwarding", Usage: "refuse Unix sockets in both directions"},
		&cli.BoolFlag{Name: "no-agent-forwarding", Usage: "refuse a client's key agent (ssh -A)"},
		&cli.BoolFlag{Name: "no-sftp", Usage: "refuse sftp; commands can still copy files"},
		&cli.BoolFlag{Name: "read-only-sftp", Usage: "refuse to change anything by sftp; commands still can"},
		&cli.StringFlag{Name: "force-command", Usage: "`COMMAND` to run in place of what users ask for, or internal-sftp"},
		&cli.StringFlag{Name: "record", Usage: "`DIR` to record each interactive shell to, as a file for asciinema; nothing typed, only what is shown"},
		&cli.DurationFlag{Name: "expiry", Value: timing.Expiry, Usage: "`DURATION` without activity after which the session ends; 0 for never"},
		&cli.DurationFlag{Name: "first-connect-timeout", Usage: "`DURATION` within which somebody must have logged in; as --expiry by default"},
		&cli.DurationFlag{Name: "max-duration", Value: timing.MaxDuration, Usage: "`DURATION` after which the session ends whatever happens; 0 for no cap"},
		&cli.DurationFlag{Name: "warning", Value: timing.Warning, Usage: "`DURATION` before the end at which users are first told; 0 for no warning"},
		&cli.DurationFlag{Name: "grace", Value: timing.Grace, Usage: "`DURATION` that the session waits after the last logout that followed a copy or command"},
		&cli.BoolFlag{Name: "keep", Usage: "stay after the last logout"},
		&cli.BoolFlag{Name: "no-wall", Usage: "do not write warnings to the users' terminals"},
		&cli.IntFlag{Name: "timeout-exit-code", Usage: "exit `CODE` when time ran out, 0 to 255"},
		&cli.StringFlag{Name: "agentdir", Usage: "`DIR` whose .hold file keeps the session; a fresh temporary one by default"},
		&cli.DurationFlag{Name: "connect-timeout", Value: 30 * time.Second, Usage: "`DURATION` for which an unreachable server is tried at the start"},
		&cli.DurationFlag{Name: "keepalive", Value: 20 * time.Second, Usage: "mean `INTERVAL` of pings; a peer silent for three is gone"},
		&cli.DurationFlag{Name: "resume-window", Value: resume.DefaultWindow, Usage: "`DURATION` for which a session waits for a client whose connection was lost; 0 ends it with the connection"},
		&cli.StringFlag{Name: "resume-buffer", Value: "4MiB", Usage: "`SIZE` of what each direction of such a session may hold, 64KiB to 64MiB"},
		&cli.StringFlag{Name: "print", Value: string(announce.Lines), Usage: "`HOW` to print the way in: lines, all (other ways too), or json (an object on a line of standard output)"},
		&cli.StringFlag{Name: "wsproxy", Value: "wsproxy", Usage: "how the printed lines call wsproxy: a name or `PATH`"},
		&cli.StringSliceFlag{Name: "ssh-option", Usage: "further ssh `OPTION` for the printed lines, such as -oIdentitiesOnly=yes"},
	}
	flags = append(flags, accessFlags()...)
	flags = append(flags, containerFlags()...)
	flags = append(flags, wrapFlags()...)
	flags = append(flags, notifyFlags()...)
	flags = append(flags, cmdline.ConnectFlags("agent")...)
	flags = append(flags, oidcFlags()...)
	return cmdline.Program{
		Name:      "agent",
		Usage:     "lets people into this job over SSH, through a rendezvous server",
		ArgsUsage: "ws[s]://HOST/agent/ID\nws[s]://HOST\nws[s]://HOST/agent/ID -- COMMAND [ARG...]",
		Description: "It calls out to the server, prints the lines to paste for ssh, and ends when the\n" +
			"last user has logged out or nobody needs it any more. Where nobody is named who may log\n" +
			"in it makes a random password for this run and prints it. With a COMMAND it runs that,\n" +
			"opens the session only if it fails, and ends with its exit code.",
		Flags:    append(flags, cmdline.LogFlags("agent")...),
		Commands: localCommands(),
		Run:      run,
	}
}

var userName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,31}$`)

// dropIgnored catches, and drops, the signals that are no concern of the
// agent's. An ignored one would be inherited: after nohup, or the & of a script,
// no user's shell could be hung up or interrupted. SIGPIPE is among them so that
// a log that nobody reads any more is no sudden death.
func dropIgnored() (stop func()) {
	dropped := make(chan os.Signal, 1)
	signal.Notify(dropped, syscall.SIGPIPE)
	for _, s := range []os.Signal{syscall.SIGHUP, os.Interrupt} {
		if signal.Ignored(s) {
			signal.Notify(dropped, s)
		}
	}
	return func() { signal.Stop(dropped) }
}

func run(ctx context.Context, in *cmdline.Invocation) error {
	if err := checkWrap(in); err != nil {
		return err
	}
	switch {
	case len(in.Args) > 0 && isLocal(in.Args[0]):
		return cmdline.Usagef("%s is a command: write it right after agent, and its options after it", in.Args[0])
	case len(in.Args) != 1:
		return cmdline.Usagef("give one URL, such as ws://HOST/agent/ID")
	}
	server, id, err := whereAndWho(in.Args[0], in.String("id"))
	if err != nil {
		return cmdline.Usagef("%v", err)
	}
	conflict := in.String("id-conflict")
	if conflict != "new" && conflict != "fail" {
		return cmdline.Usagef("--id-conflict is %q: it must be new or fail", conflict)
	}
	if !userName.MatchString(in.String("user")) {
		return cmdline.Usagef("--user is %q: a log-in name is 1 to 32 letters, digits and . _ -", in.String("user"))
	}
	printed := announce.Print(in.String("print"))
	if printed != announce.Lines && printed != announce.All && printed != announce.JSON {
		return cmdline.Usagef("--print is %q: it must be lines, all or json", printed)
	}
	wsproxy, sshOptions := in.String("wsproxy"), in.StringSlice("ssh-option")
	for _, text := range append([]string{wsproxy}, sshOptions...) {
		if text == "" || text != transport.Printable(text) {
			return cmdline.Usagef("--wsproxy and --ssh-option must not be empty, nor hold control characters or two # in a row: they become part of a line to paste")
		}
	}
	for _, pattern := range in.StringSlice("accept-env") {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return cmdline.Usagef("--accept-env is %q: give the name of a variable, with * for any letters", pattern)
		}
	}
	if err := checkAccess(in); err != nil {
		return err
	}
	timing, exitCode, err := timings(in)
	if err != nil {
		return err
	}
	resumption, err := resumption(in)
	if err != nil {
		return err
	}
	log, err := cmdline.Logger(in)
	if err != nil {
		return err
	}
	options, err := cmdline.ConnectOptions(in)
	if err != nil {
		return err
	}
	credential, err := oidcSource(in, options.Header)
	if err != nil {
		return err
	}
	tr, err := options.Transport(server.String())
	if err != nil {
		return err
	}
	hostKey, err := keys.HostKey(in.String("host-key"))
	if err != nil {
		return err
	}
	if warning := keys.Exposed(in.String("host-key")); warning != "" {
		log.Warn(warning)
	}
	who, err := readAccess(in, options.CAFile, log)
	if err != nil {
		return err
	}
	notices, err := readNotify(in, options.CAFile, log)
	if err != nil {
		return err
	}
	boxes, err := openContainers(ctx, in, server, options, log)
	if err != nil {
		return err
	}
	defer boxes.close()
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("cannot tell the working folder: %w", err)
	}
	// The end of the terminal is an end like the others, except under nohup.
	if !signal.Ignored(syscall.SIGHUP) {
		var stop func()
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	cfg := session.Config{
		Link: link.Config{
			Server: server, ID: id, KeepID: conflict == "fail",
			Transport: tr, Header: options.Header, Credential: credential,
			Patience: in.Duration("connect-timeout"), KeepAlive: in.Duration("keepalive"),
			Software: "agent " + cmdline.Version(), Meta: meta(os.Getenv),
		},
		SSH: sshd.Config{
			User: in.String("user"), HostKey: hostKey, Keys: who.keys, Password: who.password,
			Shell: in.String("shell"), Dir: dir, AcceptEnv: in.StringSlice("accept-env"),
			NoForwarding: refusedForwarding(in), NoSFTP: in.Bool("no-sftp"),
			ReadOnlySFTP: in.Bool("read-only-sftp"), ForceCommand: in.String("force-command"),
			Record: in.String("record"),
		},
		Resume: resumption,
		Access: announce.Access{
			Server: server, User: in.String("user"), HostKey: hostKey.PublicKey(), Password: who.password,
			Wsproxy: wsproxy, Options: sshOptions, Window: resumption.Window,
		},
		Expiry: timing, TimeoutExitCode: exitCode, NoWall: in.Bool("no-wall"),
		AgentDir: in.String("agentdir"), Out: in.Stdout, Print: printed, Object: in.Stdout,
		Notify: notices, Logger: log,
	}
	if boxes != nil {
		cfg.SSH.Backend = boxes.Backend
	}
	if printed == announce.JSON { // standard output is for the program that reads it
		cfg.Out = in.Stderr
	}
	// Signals are the command's, and after one the session ends within seconds: a
	// second one would only lose the command's status or leave processes behind.
	cmdline.EndInPeace(ctx)
	if in.HasTail {
		return wrap(ctx, in, cfg, who.run)
	}
	defer dropIgnored()()
	code, err := who.run(ctx, cfg)
	if err != nil {
		return err
	}
	if code != 0 {
		return cmdline.Exit(code, nil)
	}
	return nil
}

// whereAndWho takes the id from the URL or --id, or makes one.
func whereAndWho(rawURL, flag string) (rendezvous.Server, string, error) {
	server, id, err := rendezvous.ParseAgentURL(rawURL)
	switch {
	case err != nil:
		return server, "", err
	case id != "" && flag != "" && id != flag:
		return server, "", fmt.Errorf("the URL has the id %q and --id is %q: give one of them", id, flag)
	case id == "":
		id = flag
	}
	if id == "" {
		id = rendezvous.NewID()
	}
	if err := rendezvous.ValidID(id); err != nil {
		return server, "", fmt.Errorf("--id: %w", err)
	}
	return server, id, nil
}

// refusedForwarding reads the options that turn forwarding off.
func refusedForwarding(in *cmdline.Invocation) (off sshd.Forwarding) {
	for name, kinds := range map[string]sshd.Forwarding{
		"no-forwarding":        sshd.AllForwarding,
		"no-local-forwarding":  sshd.LocalForwarding,
		"no-remote-forwarding": sshd.RemoteForwarding,
		"no-socket-forwarding": sshd.SocketForwarding,
		"no-agent-forwarding":  sshd.AgentForwarding,
	} {
		if in.Bool(name) {
			off |= kinds
		}
	}
	return off
}

// timings reads and checks the options about time.
func timings(in *cmdline.Invocation) (expiry.Config, int, error) {
	for _, name := range []string{"expiry", "first-connect-timeout", "max-duration", "warning", "grace", "connect-timeout"} {
		if in.Duration(name) < 0 {
			return expiry.Config{}, 0, cmdline.Usagef("--%s is negative: give a duration such as 10m, or 0", name)
		}
	}
	if in.Duration("keepalive") < time.Second {
		return expiry.Config{}, 0, cmdline.Usagef("--keepalive must be a second or more")
	}
	code := in.Int("timeout-exit-code")
	if code < 0 || code > 255 {
		return expiry.Config{}, 0, cmdline.Usagef("--timeout-exit-code is %d: it must be from 0 to 255", code)
	}
	cfg := expiry.Config{
		Expiry:       in.Duration("expiry"),
		FirstConnect: in.Duration("first-connect-timeout"),
		Warning:      in.Duration("warning"),
		Grace:        in.Duration("grace"),
		MaxDuration:  in.Duration("max-duration"),
		Keep:         in.Bool("keep"),
	}
	if err := cfg.Validate(); err != nil {
		return cfg, 0, cmdline.Usagef("%v", err)
	}
	return cfg, code, nil
}

// maxWindow is the longest --resume-window.
const maxWindow = 24 * time.Hour

// resumption reads the options about lost connections.
func resumption(in *cmdline.Invocation) (session.Resume, error) {
	window := in.Duration("resume-window")
	if window != 0 && (window < time.Second || window > maxWindow) {
		return session.Resume{}, cmdline.Usagef("--resume-window is %v: it must be from 1s to 24h, or 0", window)
	}
	buffer, err := cmdline.Bytes(in, "resume-buffer", resume.MinBuffer, resume.MaxBuffer)
	return session.Resume{Window: window, Buffer: buffer}, err
}

// newPassword has 100 random bits, in groups that a person can type.
func newPassword() string {
	text := strings.ToLower(rand.Text())
	return strings.Join([]string{text[:5], text[5:10], text[10:15], text[15:20]}, "-")
}
