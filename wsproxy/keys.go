package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/clientend"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/pin"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/wsproxy/internal/alias"
	"example.com/converge/wsproxy/internal/pins"
	"example.com/converge/wsproxy/internal/scan"
)

// keyFlags are the options on which keys to believe.
func keyFlags() []cli.Flag {
	const category = "The agent's host key"
	return []cli.Flag{
		&cli.BoolFlag{
			Name: "accept-new", Category: category,
			Usage:   "believe, and keep, the key of an agent of which none is known; the server could show its own",
			EnvVars: cmdline.EnvVars("wsproxy", "accept-new"),
		},
		pinsFlag(),
	}
}

func pinsFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "pins", Category: "The agent's host key",
		Usage: "`FILE` in which keys are kept", DefaultText: "converge/known_hosts in the user's configuration folder",
		EnvVars: cmdline.EnvVars("wsproxy", "pins"),
	}
}

// keptPins is the file of --pins.
func keptPins(in *cmdline.Invocation) (pins.Store, error) {
	path := in.String("pins")
	if path == "" {
		var err error
		if path, err = pins.DefaultPath(); err != nil {
			return pins.Store{}, err
		}
	}
	return pins.New(path), nil
}

// where is an agent and how to reach it.
type where struct {
	server rendezvous.Server
	id     string
	pin    pin.Pin // of the URL
	url    string  // without it
	conn   transport.Options
}

// parseURL takes a client URL apart. Its error is a usage error.
func parseURL(raw string) (w where, err error) {
	bare, fragment, pinned := strings.Cut(raw, "#")
	if w.server, w.id, err = rendezvous.ParseClientURL(bare); err != nil {
		return w, cmdline.Usagef("%v", err)
	}
	if pinned {
		if w.pin, err = pin.Parse(fragment); err != nil {
			return w, cmdline.Usagef("cannot use what follows the # of the URL: %v", err)
		}
	}
	w.url = w.server.ClientURL(w.id)
	return w, nil
}

// errUnknownKey is for an agent of which no key is known.
var errUnknownKey = errors.New("no key of the agent is known: give the whole URL that the agent printed, with the # and what follows, " +
	"or keep it with wsproxy pin \"URL#PIN\", or say --accept-new to believe whatever the server shows")

// hostKey returns the key that the agent must have: that of the URL, else the one
// that is kept, else, where the user said so, the one that it shows, which is
// kept from then on.
func (w where) hostKey(ctx context.Context, kept pins.Store, acceptNew bool) (ssh.PublicKey, error) {
	if key, ok := w.pin.Key(); ok {
		return key, nil
	}
	entry, found, err := kept.Find(w.url)
	switch {
	case err != nil && w.pin.IsZero():
		return nil, err
	case found && (w.pin.IsZero() || w.pin.Matches(entry.Key)):
		return entry.Key, nil
	case w.pin.IsZero() && !acceptNew:
		return nil, errUnknownKey
	}
	key, err := w.ask(ctx)
	switch {
	case err != nil:
		return nil, err
	case !w.pin.IsZero() && !w.pin.Matches(key):
		return nil, fmt.Errorf("whoever answers has not the key that the URL names, but %s: check the URL; if it is right, somebody stands in between", ssh.FingerprintSHA256(key))
	case w.pin.IsZero():
		return key, kept.Keep(w.url, key, "")
	}
	return key, nil
}

// ask connects and asks the agent for its key.
func (w where) ask(ctx context.Context) (ssh.PublicKey, error) {
	target, err := clientend.NewTarget(w.url, false)
	if err != nil {
		return nil, err
	}
	if err := target.Use(w.conn, clientend.Resumption{}); err != nil {
		return nil, err
	}
	conn, err := target.Dial(ctx, nil)
	if err != nil {
		return nil, err
	}
	return scan.HostKey(ctx, conn)
}

// keepPin is wsproxy pin.
func keepPin() cmdline.Program {
	return cmdline.Program{
		Name: "pin", Usage: "keeps the key of an agent, for the names of ssh-config",
		ArgsUsage: "\"ws[s]://HOST/client/ID#PIN\"\n--forget ws[s]://HOST/client/ID\n",
		Description: "It keeps the key that the URL names, which the agent printed in its job's log, in place\n" +
			"of any other of that agent. Without a URL it lists the keys that are kept.",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "forget", Usage: "keep none of this agent any more"},
		}, append([]cli.Flag{pinsFlag()}, cmdline.ConnectFlags("wsproxy")...)...),
		Run: func(ctx context.Context, in *cmdline.Invocation) error {
			kept, err := keptPins(in)
			if err != nil {
				return err
			}
			switch {
			case len(in.Tail) > 0 || len(in.Args) > 1:
				return cmdline.Usagef("give one URL")
			case len(in.Args) == 0 && in.Bool("forget"):
				return cmdline.Usagef("--forget needs the URL of an agent")
			case len(in.Args) == 0:
				return listPins(in, kept)
			}
			w, err := parseURL(in.Args[0])
			if err != nil {
				return err
			}
			if in.Bool("forget") {
				found, err := kept.Forget(w.url)
				if err == nil && !found {
					err = fmt.Errorf("no key of %s is kept: wsproxy pin lists those that are", w.url)
				}
				return err
			}
			if w.pin.IsZero() {
				return cmdline.Usagef("the URL has no key (#…) to keep: copy the whole URL that the agent printed")
			}
			if w.conn, err = cmdline.ConnectOptions(in); err != nil {
				return err
			}
			key, err := w.hostKey(ctx, kept, false)
			if err == nil {
				err = kept.Keep(w.url, key, "")
			}
			if err != nil {
				return err
			}
			if _, err := alias.Of(w.id); err != nil {
				fmt.Fprintf(in.Stderr, "wsproxy: the key is kept, but %v\n", err)
			}
			return nil
		},
	}
}

func listPins(in *cmdline.Invocation, kept pins.Store) error {
	entries, err := kept.List()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := fmt.Fprintf(in.Stdout, "%s %s\n", e.URL, ssh.FingerprintSHA256(e.Key)); err != nil {
			return fmt.Errorf("cannot write the list: %w", err)
		}
	}
	return nil
}
