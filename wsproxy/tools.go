package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/clientend"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/pin"
	"example.com/converge/pkg/shellword"
	"example.com/converge/pkg/transport"
	"example.com/converge/wsproxy/internal/alias"
	"example.com/converge/wsproxy/internal/child"
	"example.com/converge/wsproxy/internal/pins"
	"example.com/converge/wsproxy/internal/tools"
)

// defaultUser is the log-in name of agents that were given no other.
const defaultUser = "abc"

// ssh asks for a sign of life after aliveInterval of silence and, since it is
// wsproxy's business to tell a dead path, is patient: for the window, but no
// more than alivePatience of it, so that an agent that hangs is noticed some
// day.
const (
	aliveInterval = 10 * time.Second
	alivePatience = time.Hour
	aliveMore     = 6
)

// alive is ServerAliveCountMax.
func alive(window time.Duration) int {
	window = min(window, alivePatience)
	return int((window+aliveInterval-1)/aliveInterval) + aliveMore
}

// toolCommands are ssh, sftp, scp and rsync.
func toolCommands() []cmdline.Program {
	var programs []cmdline.Program
	for tool, usage := range map[*tools.Tool]string{
		&tools.SSH:   "opens a shell, or runs a command, with stock ssh",
		&tools.SFTP:  "moves files, with stock sftp",
		&tools.SCP:   "copies files, with stock scp",
		&tools.Rsync: "copies what has changed, with stock rsync",
	} {
		programs = append(programs, toolCommand(*tool, usage))
	}
	slices.SortFunc(programs, func(a, b cmdline.Program) int { return order[a.Name] - order[b.Name] })
	return programs
}

var order = map[string]int{"ssh": 1, "sftp": 2, "scp": 3, "rsync": 4}

func toolCommand(tool tools.Tool, usage string) cmdline.Program {
	flags := slices.Concat([]cli.Flag{
		&cli.BoolFlag{
			Name: "quiet", Usage: "do not say on standard error when the connection is lost and when it is back",
			EnvVars: cmdline.EnvVars("wsproxy", "quiet"),
		},
	}, keyFlags(), clientend.Flags("wsproxy"), cmdline.ConnectFlags("wsproxy"))
	description := "URL is ws[s]://HOST/client/ID#PIN, in quotes, as the agent printed it. What follows it goes to\n" +
		tool.Name + " as it is, and so do options of one letter before it; wsproxy's own options, which begin\n" +
		"with --, stand before it."
	if tool.Name == "scp" || tool.Name == "rsync" {
		description += " A path that begins with job: is one of the agent's."
	}
	return cmdline.Program{
		Name: tool.Name, Usage: usage, ArgsUsage: tool.Usage, Flags: flags,
		Description: description + "\nThe exit status is that of " + tool.Name + "; the log-in name is " + defaultUser + " unless you say otherwise.",
		Cut: func(args []string) (own, tail []string) {
			return tool.Cut(args, func(name string) bool { return takesValue(flags, name) })
		},
		Run: func(ctx context.Context, in *cmdline.Invocation) error { return runTool(ctx, in, tool) },
	}
}

// takesValue reports whether an option is one of these and no switch.
func takesValue(flags []cli.Flag, name string) bool {
	return slices.ContainsFunc(flags, func(f cli.Flag) bool {
		_, isSwitch := f.(*cli.BoolFlag)
		return !isSwitch && slices.Contains(f.Names(), name)
	})
}

// runTool runs the stock program with its connection led through wsproxy, and
// the agent's key in a known_hosts file that is there as long as the program.
func runTool(ctx context.Context, in *cmdline.Invocation, tool tools.Tool) error {
	line, err := tool.Split(in.Tail)
	if err != nil {
		return cmdline.Usagef("%v", err)
	}
	w, err := parseURL(line.URL)
	if err != nil {
		return err
	}
	var resumption clientend.Resumption
	if w.conn, resumption, err = connecting(in); err != nil {
		return err
	}
	kept, err := keptPins(in)
	if err != nil {
		return err
	}
	key, err := w.hostKey(ctx, kept, in.Bool("accept-new"))
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot tell where wsproxy is: %w", err)
	}
	host := hostName(w.id)
	knownHosts, remove, err := temporary(pins.Line(strings.ToLower(host), key) + "\n")
	if err != nil {
		return err
	}
	defer remove()
	args, err := tool.Args(line, tools.Settings{
		Host: host, User: defaultUser, KnownHosts: knownHosts,
		ProxyCommand:  proxyCommand(program, w.url+"#"+pin.Of(key).String()),
		AliveInterval: int(aliveInterval / time.Second), AliveCount: alive(resumption.Window),
	})
	if err != nil {
		return cmdline.Usagef("%v", err)
	}
	// From here on it is the program's business to end.
	cmdline.EndInPeace(ctx)
	status, err := child.Run(child.Command{
		Name: tool.Name, Args: args, Env: append(os.Environ(), environment(in, w.conn)...),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	switch {
	case err != nil:
		return err
	case status != 0:
		return cmdline.Exit(status, nil)
	}
	return nil
}

// hostName is what ssh calls the agent: its name among those of ssh-config, if
// it has one.
func hostName(id string) string {
	name, err := alias.Of(id)
	if err != nil {
		name = "agent"
	}
	return name + "." + alias.DefaultDomain
}

// proxyCommand is a command line for the shell by which ssh runs one.
func proxyCommand(words ...string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = proxyWord(word)
	}
	return strings.Join(quoted, " ")
}

func proxyWord(s string) string {
	s = shellword.Percent(s)
	switch {
	case runtime.GOOS != "windows":
		return shellword.Proxy(s)
	case shellword.Plain(s):
		return s
	}
	return `"` + s + `"`
}

// environment hands the options on how to connect to the wsproxy that ssh
// starts. Secrets among them are nowhere else that others could read.
func environment(in *cmdline.Invocation, options transport.Options) []string {
	var env []string
	set := func(name, value string) {
		env = append(env, cmdline.EnvVars("wsproxy", name)[0]+"="+value)
	}
	for _, name := range []string{"ca", "resume-buffer"} {
		set(name, in.String(name))
	}
	for _, name := range []string{"insecure", "quiet"} {
		set(name, fmt.Sprint(in.Bool(name)))
	}
	set("resume-window", in.Duration("resume-window").String())
	set("raw", "")
	set("token", "") // it is among the headers
	set("header", headerLines(options.Header))
	return env
}

func headerLines(header http.Header) string {
	var lines []string
	for name, values := range header {
		for _, value := range values {
			lines = append(lines, name+": "+value)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// temporary writes a file that only this user can read, and returns what
// removes it.
func temporary(text string) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "wsproxy-") // 0700
	if err != nil {
		return "", nil, fmt.Errorf("cannot make a folder for the agent's key: %w", err)
	}
	remove = func() { _ = os.RemoveAll(dir) }
	path = filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		remove()
		return "", nil, fmt.Errorf("cannot write the agent's key: %w", err)
	}
	return filepath.ToSlash(path), remove, nil
}
