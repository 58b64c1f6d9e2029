//go:build linux

package measures

import (
	"context"
	"errors"
	"fmt"

	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/proc"
	"example.com/converge/bench/internal/stats"
	"example.com/converge/bench/internal/table"
)

// Rows and the column of the measure in a container.
const (
	boxExec = "docker exec"
	boxSSH  = peers.Converge
	boxOpen = "converge, connection open"
	boxWall = "ms"
)

// inContainer measures a command in a container that runs: by the engine's
// client, and by ssh.
func inContainer(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	box, err := cfg.Lab.StartBox(ctx)
	if errors.Is(err, peers.ErrNoEngine) {
		cfg.Log("container: left out: %v", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer box.Stop()
	sheet := table.New("container", "`ssh true` in a container that runs",
		fmt.Sprintf("%s. The whole command: `docker exec CONTAINER true`; ssh through wsproxy, server and agent, with a login (curve25519); and over a connection that is open (ControlMaster). Each has run before; each sample is the median of %d.", box.About, cfg.Logins),
		boxExec, boxWall)
	ways := []struct {
		row  string
		args []string
	}{
		{boxExec, box.Exec("true")},
		{boxSSH, append(box.Line.SSH("ssh", box.Line.Front, sameKex), "true")},
		{boxOpen, append(box.Multiplexed(sameKex), "true")},
	}
	for _, way := range ways {
		sheet.Row(way.row)
		if _, err := proc.Run(ctx, proc.Command{Args: way.args}); err != nil {
			return nil, fmt.Errorf("%s: %w", way.row, err)
		}
	}
	for round := range cfg.Rounds {
		for i := range ways {
			way := ways[(i+round)%len(ways)]
			cfg.Log("container: round %d of %d: %s", round+1, cfg.Rounds, way.row)
			var walls []float64
			for range cfg.Logins {
				usage, err := proc.Run(ctx, proc.Command{Args: way.args})
				if err != nil {
					return nil, fmt.Errorf("%s: %w", way.row, err)
				}
				walls = append(walls, usage.Wall.Seconds()*1e3)
			}
			sheet.Add(way.row, boxWall, stats.Quantile(walls, 0.5))
		}
	}
	return []*table.Sheet{sheet}, nil
}
