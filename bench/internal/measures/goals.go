//go:build linux

package measures

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strings"

	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/stats"
	"example.com/converge/bench/internal/table"
)

// goal is a figure that Converge is to reach.
type goal struct {
	name       string
	sheet      string
	column     string // "" is the largest count of a memory sheet
	row        string // whose it is; "" is Converge
	base       string // the row to compare with; "" is none
	reach, aim float64
	atLeast    bool // more is better
}

// goals are what is to be reached, in the order of the report.
var goals = []goal{
	{name: "relay CPU up, against a TCP copy", sheet: "relay-cpu", column: "up, 1 stream", base: peers.TCPCopy, reach: 0.9, aim: 0.8},
	{name: "relay CPU down, against a TCP copy", sheet: "relay-cpu", column: "down, 1 stream", base: peers.TCPCopy, reach: 0.9, aim: 0.8},
	{name: "sftp get, default client, against OpenSSH directly", sheet: "transfer-speed", column: "get", base: peers.Direct, reach: 1.3, aim: 1.5, atLeast: true},
	{name: "sftp put", sheet: "transfer-speed", column: "put", base: peers.Direct, reach: 1.2, aim: 1.5, atLeast: true},
	{name: "ssh cat", sheet: "transfer-speed", column: "cat", base: peers.Direct, reach: 1.5, aim: 2, atLeast: true},
	{name: "CPU of the chain, get", sheet: "transfer-cpu", column: "get", base: peers.Direct, reach: 1, aim: 0.8},
	{name: "`ssh true`, same key exchange", sheet: "login", column: "ms", base: peers.Direct, reach: 0.3, aim: 0.2},
	{name: "key echo p50", sheet: "echo", column: "p50", base: peers.Direct, reach: 1.4, aim: 1.25},
	{name: "sftp get with resumption, against without", sheet: "transfer-speed", column: "get", base: peers.NoResume, reach: 0.95, aim: 1, atLeast: true},
	{name: "sftp put with resumption, against without", sheet: "transfer-speed", column: "put", base: peers.NoResume, reach: 0.95, aim: 1, atLeast: true},
	{name: "ssh cat with resumption, against without", sheet: "transfer-speed", column: "cat", base: peers.NoResume, reach: 0.95, aim: 1, atLeast: true},
	{name: "ms of pause after a server that was away for a second", sheet: "resume-pause", column: pauseColumn(longAway), reach: 1000, aim: 500},
	{name: "push to updated folder, nothing new, against git by a script", sheet: "update", column: colSame, row: rowGitgate, base: rowGit, reach: 1.2, aim: 1},
	{name: "push to updated folder, one commit, against git by a script", sheet: "update", column: colCommit, row: rowGitgate, base: rowGit, reach: 1.2, aim: 1},
	{name: "ms until 1000 webhooks are answered", sheet: "storm", column: colAnswered, row: rowGitgate, reach: 1000, aim: 500},
	{name: "updates that 1000 webhooks lead to", sheet: "storm", column: colFetches, row: rowGitgate, reach: 2, aim: 2},
	{name: "KiB per live idle session", sheet: "memory-sessions", reach: 20, aim: 12},
	{name: "KiB per idle agent", sheet: "memory-agents", reach: 22, aim: 14},
	{name: "share of SSH's window at a distance, down", sheet: "distance", column: distShare, reach: 0.95, aim: 0.98, atLeast: true},
	{name: "share of SSH's window at a distance, up", sheet: "distance", column: distShareUp, reach: 0.95, aim: 0.98, atLeast: true},
	{name: "`ssh true` in a container, against `docker exec`", sheet: "container", column: boxWall, base: boxExec, reach: 1.5, aim: 1},
}

// Goals writes, as Markdown, what Converge was to reach and what it did, of
// the sheets that are there.
func Goals(w io.Writer, sheets []*table.Sheet, cfg Config) error {
	var b strings.Builder
	for _, g := range goals {
		value := g.value(sheets, cfg)
		if math.IsNaN(value) {
			continue
		}
		sign := "≤"
		if g.atLeast {
			sign = "≥"
		}
		fmt.Fprintf(&b, "| %s | %s | %s %s | %s %s | %s |\n", g.name, table.Number(value),
			sign, table.Number(g.reach), sign, table.Number(g.aim), g.verdict(value))
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "### What Converge is to reach\n\n| figure | measured | reach | aim | |\n|---|---|---|---|---|\n%s\n", b.String())
	return err
}

// value is the figure, NaN where it was not measured.
func (g goal) value(sheets []*table.Sheet, cfg Config) float64 {
	for _, sheet := range sheets {
		if sheet.Key != g.sheet {
			continue
		}
		row := cmp.Or(g.row, peers.Converge)
		if g.base != "" {
			return sheet.Ratio(row, g.base, g.column)
		}
		column := g.column
		if column == "" {
			counts, err := affordable(cfg, 0)
			if err != nil || len(counts) == 0 {
				return math.NaN()
			}
			column = at(counts[len(counts)-1])
		}
		return stats.Summarise(sheet.Samples(row, column)).Median
	}
	return math.NaN()
}

// verdict says in a word how far it got.
func (g goal) verdict(value float64) string {
	better := func(limit float64) bool {
		if g.atLeast {
			return value >= limit
		}
		return value <= limit
	}
	switch {
	case better(g.aim):
		return "beyond the aim"
	case better(g.reach):
		return "reached"
	}
	return "not yet"
}
