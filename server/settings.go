package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/config"
)

// noSettings are the options that say something else than how to serve, and
// why they may not stand in a file. All others may.
var noSettings = map[string]string{
	"config":         "it names the file itself",
	"print-config":   "it prints and ends: give it on the command line",
	"check":          "it checks and ends: give it on the command line",
	"check-policy":   "it checks and ends: give it on the command line",
	"make-state-key": "it makes a key and ends: give it on the command line",
	"make-token":     "it makes a token and ends: give it on the command line",
	"role":           "it goes with --make-token",
	"ids":            "it goes with --make-token",
	"ca":             "it goes with --check",
	"insecure":       "it goes with --check",
	"header":         "it goes with --check",
	"token":          "it goes with --check",
	"help":           "it is asked for on the command line",
	"version":        "it is asked for on the command line",
}

// settingKeys are the options as config wants them.
func settingKeys(options []cmdline.Option) []config.Key {
	var keys []config.Key
	for _, o := range options {
		keys = append(keys, config.Key{Option: o, Not: noSettings[o.Name]})
	}
	return keys
}

// fromFile is the program's Settings: those of --config, which it knows again
// when it is read again.
func fromFile() func([]cmdline.Option, func(string) string) ([]cmdline.Setting, error) {
	var file config.File
	return func(options []cmdline.Option, value func(string) string) ([]cmdline.Setting, error) {
		path := value("config")
		if path == "" {
			return nil, nil
		}
		return file.Load(path, settingKeys(options))
	}
}

// printConfig is what runs with --print-config.
func printConfig(in *cmdline.Invocation) error {
	effective := in.Effective()
	var options []cmdline.Option
	for _, e := range effective {
		options = append(options, e.Option)
	}
	return config.Print(in.Stdout,
		"The options of the server as a file for --config. A line that begins with # shows the default.",
		effective, settingKeys(options))
}

// checkConfig is server check-config. The variables of the environment are not
// asked: the question is about the file.
func checkConfig() cmdline.Program {
	const name = "check-config"
	return cmdline.Program{
		Name: name, ArgsUsage: "FILE",
		Usage: "says what is wrong with a file for --config, and with the files that it names",
		Run: func(ctx context.Context, in *cmdline.Invocation) error {
			if len(in.Args) != 1 || len(in.Tail) > 0 {
				return cmdline.Usagef("give one FILE")
			}
			p := program()
			p.Name, p.Commands = "server "+name, nil
			p.Run = func(_ context.Context, in *cmdline.Invocation) error { return checked(in) }
			return cmdline.Exit(cmdline.Run(ctx, p, []string{p.Name, "--config=" + in.Args[0]}, in.Stdin, in.Stdout, in.Stderr), nil)
		},
	}
}

// checked says what is wrong with an invocation that is to serve.
func checked(in *cmdline.Invocation) error {
	log, err := cmdline.Logger(in)
	if err != nil {
		return err
	}
	p, err := prepare(in, nil, log)
	if err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(in.Stdout, "ok: %s\n", in.String("config"))
	return err
}

// writable reports why a file cannot be appended to. It makes none.
func writable(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		return f.Close()
	}
	if os.IsNotExist(err) {
		_, err = os.Stat(filepath.Dir(path))
	}
	return err
}
