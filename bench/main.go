//go:build linux

// Command bench measures Converge beside its peers, on one machine and in one
// run, and prints the figures as Markdown. It ships with nothing. What each
// row means is in docs/performance.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"example.com/converge/bench/internal/child"
	"example.com/converge/bench/internal/measures"
	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/table"
	"example.com/converge/pkg/cmdline"
)

func main() {
	if code, asked := child.Main(os.Args); asked {
		os.Exit(code)
	}
	cmdline.Main(program())
}

func program() cmdline.Program {
	var names, about []string
	for _, m := range measures.All() {
		names = append(names, m.Name)
	}
	for _, p := range peers.All() {
		about = append(about, p.Name)
	}
	return cmdline.Program{
		Name:        "bench",
		Usage:       "measures Converge beside its peers, on this machine",
		ArgsUsage:   " ",
		Description: "Measures: " + strings.Join(names, ", ") + ".\nPeers: " + strings.Join(about, ", ") + ".",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "only", Usage: "`MEASURES` to take, separated by commas; all by default"},
			&cli.StringFlag{Name: "peers", Usage: "`PEERS` to compare, separated by commas; all by default"},
			&cli.IntFlag{Name: "rounds", Value: 5, Usage: "samples of each figure, a `NUMBER`"},
			&cli.StringFlag{Name: "size", Value: "512MiB", Usage: "bytes of one transfer, a `SIZE` such as 64MiB"},
			&cli.StringFlag{Name: "far-size", Value: "128MiB", Usage: "bytes of one transfer at a distance, a `SIZE`"},
			&cli.DurationFlag{Name: "round-trip", Value: 50 * time.Millisecond, Usage: "`DURATION` of a round trip at a distance"},
			&cli.IntFlag{Name: "streams", Value: 16, Usage: "`NUMBER` of streams at a time"},
			&cli.IntFlag{Name: "keys", Value: 200, Usage: "`NUMBER` of keystrokes in a round"},
			&cli.IntFlag{Name: "logins", Value: 5, Usage: "`NUMBER` of logins in a round"},
			&cli.StringFlag{Name: "connections", Value: "1000,4000", Usage: "`NUMBERS` of idle connections, separated by commas"},
			&cli.IntFlag{Name: "files", Value: 10_000, Usage: "`NUMBER` of files in a repository that is updated"},
			&cli.DurationFlag{Name: "rest", Value: 6 * time.Second, Usage: "`DURATION` for which a connection stands before its server is killed; an agent does not hurry back to a server that fails all the time"},
			&cli.StringFlag{Name: "json", Usage: "`FILE` to write all samples to"},
		},
		Run: run,
	}
}

func run(ctx context.Context, in *cmdline.Invocation) error {
	cfg, chosen, err := config(in)
	if err != nil {
		return err
	}
	begin := time.Now()
	cfg.Log = func(format string, args ...any) {
		fmt.Fprintf(in.Stderr, "%7.1fs  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
	cfg.Log("building the programs")
	if cfg.Lab, err = peers.New(ctx); err != nil {
		return err
	}
	defer cfg.Lab.Close()
	about := surroundings(ctx, cfg)
	var sheets []*table.Sheet
	for _, measure := range chosen {
		some, err := measure.Run(ctx, cfg)
		if err != nil {
			return fmt.Errorf("%s: %w", measure.Name, err)
		}
		sheets = append(sheets, some...)
	}
	about = append(about, fact{"took", time.Since(begin).Round(time.Second).String()}, fact{"load at the end", load()})
	if err := report(in.Stdout, about, sheets, cfg); err != nil {
		return err
	}
	if name := in.String("json"); name != "" {
		if err := writeJSON(name, about, sheets); err != nil {
			return err
		}
	}
	var failures []error
	for _, sheet := range sheets {
		for _, failure := range sheet.Failures() {
			failures = append(failures, errors.New(failure))
		}
	}
	return errors.Join(failures...)
}

// config reads the options.
func config(in *cmdline.Invocation) (measures.Config, []measures.Measure, error) {
	var cfg measures.Config
	if len(in.Args)+len(in.Tail) > 0 {
		return cfg, nil, cmdline.Usagef("there are only options, no arguments")
	}
	chosen, err := measures.Select(list(in.String("only")))
	if err != nil {
		return cfg, nil, cmdline.Usagef("--only: %v", err)
	}
	if cfg.Peers, err = peers.Select(list(in.String("peers"))); err != nil {
		return cfg, nil, cmdline.Usagef("--peers: %v", err)
	}
	for _, number := range []struct {
		name string
		to   *int
	}{{"rounds", &cfg.Rounds}, {"streams", &cfg.Streams}, {"keys", &cfg.Keys}, {"logins", &cfg.Logins}, {"files", &cfg.Files}} {
		if *number.to = in.Int(number.name); *number.to < 1 {
			return cfg, nil, cmdline.Usagef("--%s must be 1 or more", number.name)
		}
	}
	for _, size := range []struct {
		name string
		to   *int64
	}{{"size", &cfg.Size}, {"far-size", &cfg.FarSize}} {
		if *size.to, err = bytes(in.String(size.name)); err != nil {
			return cfg, nil, cmdline.Usagef("--%s: %v", size.name, err)
		}
	}
	cfg.Size -= cfg.Size % int64(cfg.Streams)
	trip := in.Duration("round-trip")
	if trip <= 0 || trip > 10*time.Second {
		return cfg, nil, cmdline.Usagef("--round-trip is %v: it must be more than 0 and at most 10s", trip)
	}
	cfg.Delay = trip / 2
	if cfg.Rest = in.Duration("rest"); cfg.Rest < 0 {
		return cfg, nil, cmdline.Usagef("--rest is %v: it must not be negative", cfg.Rest)
	}
	for _, text := range list(in.String("connections")) {
		count, err := strconv.Atoi(text)
		if err != nil || count < 1 {
			return cfg, nil, cmdline.Usagef("--connections: %q is no number of connections", text)
		}
		cfg.Connections = append(cfg.Connections, count)
	}
	if len(cfg.Connections) == 0 {
		return cfg, nil, cmdline.Usagef("--connections names no number")
	}
	return cfg, chosen, nil
}

// list splits at commas.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

// bytes reads a size such as 64MiB; without a unit it is in bytes.
func bytes(text string) (int64, error) {
	unit := int64(1)
	for _, u := range []struct {
		name string
		size int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}} {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = rest, u.size
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	const least, most = 64 << 10, 64 << 30
	if err != nil || n > most || n*unit < least || n*unit > most {
		return 0, fmt.Errorf("%q is no size from 64KiB to 64GiB", text)
	}
	return n * unit, nil
}

// report writes the Markdown.
func report(w io.Writer, about []fact, sheets []*table.Sheet, cfg measures.Config) error {
	if _, err := io.WriteString(w, describe(about)); err != nil {
		return err
	}
	if err := measures.Goals(w, sheets, cfg); err != nil {
		return err
	}
	for _, sheet := range sheets {
		if err := sheet.Markdown(w); err != nil {
			return err
		}
	}
	return nil
}

// writeJSON writes everything that was sampled.
func writeJSON(name string, about []fact, sheets []*table.Sheet) error {
	text, err := json.MarshalIndent(map[string]any{"about": about, "sheets": sheets}, "", "  ")
	if err == nil {
		err = os.WriteFile(name, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot write the samples: %w", err)
	}
	return nil
}
