//go:build linux

package session

import (
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"example.com/converge/agent/internal/box"
	"example.com/converge/container"
	"example.com/converge/container/enginetest"
	"example.com/converge/pkg/expiry"
)

// A session in a container is told of a .hold that is where the agent runs, is
// held by it, and leaves no container behind.
func TestContainer(t *testing.T) {
	engine := enginetest.New(t)
	engine.Images = map[string]enginetest.Image{"debian": {Cmd: []string{"/bin/sh"}}}
	engine.Start()
	var cfg container.Config
	cfg.Connection.Host = engine.Host()
	cfg.Execution.Image = "debian"
	cfg.Execution.DisableAgent = true
	cfg.Execution.IdleCommand = []string{"/bin/sleep", "3600"}
	back, err := box.New(cfg, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "agent's")
	a := start(t, func(c *Config) {
		c.SSH.Backend, c.AgentDir = back, dir
		c.Expiry = expiry.Config{Expiry: 1000 * time.Hour}
	})
	client := a.login()
	s := a.shell(client)
	hold := s.shows(`To keep or extend it:\r\n  (touch "\S* ?\S*/\.hold") # where the agent runs: this is a container of debian\r\n`)[1]
	s.typeIn("echo \"<$agentdir>\"; echo do''ne\n")
	s.shows(`done\r\n`)
	if regexp.MustCompile(`More: |<[^>$]+>`).MatchString(s.out.String()) {
		t.Errorf("%q", s.out)
	}
	if n := len(engine.Containers()); n != 1 {
		t.Errorf("%d containers", n)
	}
	a.logged(`place="a container of debian"`)
	// Containers of this engine are processes of this machine.
	if out := a.run(client, hold+" && echo held"); out != "held\n" {
		t.Errorf("%q", out)
	}
	a.logged(`msg=deadline`)
	s.leave(client)
	a.logged(lingering)
	client = a.login()
	a.run(client, "true")
	a.stop()
	a.ends(0)
	if left := engine.Containers(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
