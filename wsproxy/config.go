package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/clientend"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/pin"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/resume"
	"example.com/converge/wsproxy/internal/alias"
	"example.com/converge/wsproxy/internal/pins"
	"example.com/converge/wsproxy/internal/sshconfig"
)

func domainFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "domain", Value: alias.DefaultDomain, Usage: "`NAME` that the names of agents end in; one for each server",
		EnvVars: cmdline.EnvVars("wsproxy", "domain"),
	}
}

var userName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,31}$`)

// sshConfig is wsproxy ssh-config.
func sshConfig() cmdline.Program {
	return cmdline.Program{
		Name: "ssh-config", Usage: "prints a block for ~/.ssh/config, for ssh ID." + alias.DefaultDomain,
		ArgsUsage: " ",
		Description: "With it ssh, sftp, scp, rsync, git, editors and others reach an agent as ID." + alias.DefaultDomain + ", with\n" +
			"-- for each / of the id:\n" +
			"  wsproxy ssh-config --server wss://HOST >> ~/.ssh/config\n" +
			"The agent's key is one that wsproxy pin has kept, or the first one seen if --accept-new is given.\n" +
			"The block never holds a secret: --token and --header take @FILE here, or their variables when ssh runs.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "server", Usage: "`URL` of the server, ws[s]://HOST", EnvVars: cmdline.EnvVars("wsproxy", "server")},
			domainFlag(),
			&cli.StringFlag{Name: "user", Value: defaultUser, Usage: "log-in `NAME`", EnvVars: cmdline.EnvVars("wsproxy", "user")},
		}, keyFlags(), clientend.Flags("wsproxy"), cmdline.ConnectFlags("wsproxy")),
		Run: func(_ context.Context, in *cmdline.Invocation) error {
			block, err := block(in)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprint(in.Stdout, block.Text()); err != nil {
				return fmt.Errorf("cannot write the block: %w", err)
			}
			return nil
		},
	}
}

// block reads the options of ssh-config.
func block(in *cmdline.Invocation) (sshconfig.Block, error) {
	var b sshconfig.Block
	switch {
	case len(in.Args) > 0 || len(in.Tail) > 0:
		return b, cmdline.Usagef("ssh-config takes no argument: name the server with --server")
	case in.String("server") == "":
		return b, cmdline.Usagef("say which server: --server wss://HOST")
	case !userName.MatchString(in.String("user")):
		return b, cmdline.Usagef("--user is %q: a log-in name is 1 to 32 letters, digits and . _ -", in.String("user"))
	}
	server, err := parseServer(in.String("server"))
	if err != nil {
		return b, cmdline.Usagef("--server: %v", err)
	}
	if err := alias.ValidDomain(in.String("domain")); err != nil {
		return b, cmdline.Usagef("--domain is %q: %v", in.String("domain"), err)
	}
	resumption, err := clientend.ReadFlags(in)
	if err != nil {
		return b, err
	}
	options, err := writtenOptions(in)
	if err != nil {
		return b, err
	}
	program, err := os.Executable()
	if err != nil {
		return b, fmt.Errorf("cannot tell where wsproxy is: %w", err)
	}
	kept, err := keptPins(in)
	if err != nil {
		return b, err
	}
	file, err := filepath.Abs(kept.Path())
	if err != nil {
		return b, fmt.Errorf("cannot tell where to keep keys: %w", err)
	}
	if usual, err := pins.DefaultPath(); err != nil || file != usual {
		options = append(options, "--pins", file)
	}
	// After -- nothing that a name brings along is taken for an option.
	words := slices.Concat([]string{program, "by-name", "--domain", in.String("domain")}, options, []string{"--", server.String()})
	b = sshconfig.Block{
		Domain: in.String("domain"), User: in.String("user"),
		Proxy: proxyCommand(words...), KnownHosts: filepath.ToSlash(file),
		AliveInterval: int(aliveInterval / time.Second), AliveCount: alive(resumption.Window),
		Windows: runtime.GOOS == "windows",
	}
	for _, text := range []string{b.Proxy, b.KnownHosts} {
		if strings.ContainsAny(text, "\r\n") {
			return b, errors.New("cannot write the block: the path of wsproxy, of a file or of the keys has a line break in it")
		}
	}
	return b, nil
}

// parseServer reads ws[s]://HOST[/PREFIX].
func parseServer(raw string) (rendezvous.Server, error) {
	server, id, err := rendezvous.ParseAgentURL(raw)
	if err == nil && id != "" {
		err = fmt.Errorf("it is the URL of an agent: leave /agent/ and what follows out")
	}
	return server, err
}

// writtenOptions are those of the command line that go into the block. What a
// variable says is left to the variable, and a secret is refused.
func writtenOptions(in *cmdline.Invocation) ([]string, error) {
	var words []string
	for _, name := range []string{"accept-new", "insecure"} {
		if in.OnLine(name) && in.Bool(name) {
			words = append(words, "--"+name)
		}
	}
	if in.OnLine("ca") {
		file, err := filepath.Abs(in.String("ca"))
		if err != nil {
			return nil, fmt.Errorf("cannot tell where the file of --ca is: %w", err)
		}
		words = append(words, "--ca", file)
	}
	secrets := map[string][]string{}
	if in.OnLine("header") {
		secrets["header"] = in.StringSlice("header")
	}
	if in.OnLine("token") {
		secrets["token"] = []string{in.String("token")}
	}
	for _, name := range []string{"header", "token"} {
		for _, value := range secrets[name] {
			if !cmdline.IsFile(value) {
				return nil, cmdline.Usagef("--%s would stand in ssh's configuration, where others may read it: give --%s @FILE, or leave it out and set the variable %s when ssh runs",
					name, name, cmdline.EnvVars("wsproxy", name)[0])
			}
			file, err := filepath.Abs(value[1:])
			if err != nil {
				return nil, fmt.Errorf("cannot tell where the file of --%s is: %w", name, err)
			}
			words = append(words, "--"+name, "@"+file)
		}
	}
	if in.OnLine("resume-window") {
		words = append(words, "--resume-window", in.Duration("resume-window").String())
	}
	if in.OnLine("resume-buffer") {
		words = append(words, "--resume-buffer", in.String("resume-buffer"))
	}
	return words, nil
}

// byName is wsproxy by-name, which ssh-config's block calls.
func byName() cmdline.Program {
	return cmdline.Program{
		Name: "by-name", Usage: "is the ProxyCommand that ssh-config writes",
		ArgsUsage: "ws[s]://HOST NAME." + alias.DefaultDomain,
		Flags: slices.Concat([]cli.Flag{
			domainFlag(),
			&cli.BoolFlag{
				Name: "quiet", Aliases: []string{"q"}, Usage: "do not say on standard error when the connection is lost and when it is back",
				EnvVars: cmdline.EnvVars("wsproxy", "quiet"),
			},
		}, keyFlags(), clientend.Flags("wsproxy"), cmdline.ConnectFlags("wsproxy"), cmdline.LogFlagsAt("wsproxy", "warn")),
		Run: runByName,
	}
}

func runByName(ctx context.Context, in *cmdline.Invocation) error {
	args := slices.Concat(in.Args, in.Tail)
	if len(args) != 2 {
		return cmdline.Usagef("give the server's URL and a name")
	}
	server, err := parseServer(args[0])
	if err != nil {
		return cmdline.Usagef("%v", err)
	}
	name, domain := args[1], in.String("domain")
	id, err := alias.ID(name, domain)
	if err != nil {
		return cmdline.Usagef("%v", err)
	}
	options, resumption, err := connecting(in)
	if err != nil {
		return err
	}
	kept, err := keptPins(in)
	if err != nil {
		return err
	}
	w := where{server: server, id: id, url: server.ClientURL(id), conn: options}
	key, err := w.hostKey(ctx, kept, in.Bool("accept-new"))
	if err != nil {
		return fmt.Errorf("%s: %w", w.url, err)
	}
	// ssh looks the key up under this name, after the server's first word, which
	// comes from here.
	entry, _, err := kept.Find(w.url)
	if err == nil && !slices.Contains(entry.Names, strings.ToLower(name)) {
		err = kept.Keep(w.url, key, name)
	}
	if err != nil {
		return err
	}
	target, err := clientend.NewTarget(w.url+"#"+pin.Of(key).String(), false)
	if err != nil {
		return err
	}
	if err := target.Use(options, resumption); err != nil {
		return err
	}
	err = join(ctx, in, target)
	if errors.Is(err, resume.ErrPin) {
		return fmt.Errorf("the agent %s has not the key that is kept for it: if its job ran again, copy the URL from the new log and keep it with wsproxy pin \"URL#PIN\"; if not, somebody stands in between", id)
	}
	return err
}
