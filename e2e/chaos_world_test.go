//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"example.com/converge/e2e/internal/fault"
)

// replica is one of two servers with one state key.
type replica struct {
	name, addr string
	args       []string
	*process
}

// privateLoopback is an address of this machine that outgoing connections do
// not take, so that a port of it stays free while its server is away.
func privateLoopback(rng *rand.Rand) string {
	return fmt.Sprintf("127.%d.%d.%d:0", 64+rng.IntN(128), rng.IntN(256), 1+rng.IntN(254))
}

// open starts everything: two servers, a gate before them for the agent and
// one for each worker, and the agent.
func (c *chaos) open() {
	c.t.Helper()
	c.t.Cleanup(func() { c.report() })
	key := filepath.Join(c.dir, "state.key")
	makeStateKey(c.t, key)
	for i, name := range []string{"a", "b"} {
		c.servers[i] = &replica{name: name, addr: privateLoopback(rand.New(rand.NewPCG(rand.Uint64(), 0))),
			args: []string{"--state-key", key}}
		c.raise(c.servers[i])
	}
	c.agentGate = c.gate()
	c.start(agentCommand("ws://"+c.agentGate.Address()+"/agent/"+uniqueID(), c.id, "--keep", "--expiry", "0", "--max-duration", "0")...)
	c.agent = awaitAgent(c.t, c.programs[len(c.programs)-1])
	c.hire()
}

func (c *chaos) gate() *fault.Gate {
	c.t.Helper()
	g, err := fault.Open("127.0.0.1:0", c.servers[c.active].addr)
	if err != nil {
		c.t.Fatal(err)
	}
	return g
}

// start starts a program that close will end.
func (c *chaos) start(args ...string) *process {
	c.t.Helper()
	p, err := launch(nil, args[0], args[1:]...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.programs = append(c.programs, p)
	return p
}

// raise starts a server and waits until it serves, always at the same address.
func (c *chaos) raise(r *replica) {
	c.t.Helper()
	r.process = c.start(append([]string{tool("server"), "--listen", r.addr}, r.args...)...)
	r.addr = r.out.Await(c.t, `msg=serving address=(\S+)`, 1)[1]
}

// close ends everything, in the order in which a user would, and sees that
// nothing is left behind.
func (c *chaos) close() {
	c.t.Helper()
	c.cancel(errOver)
	c.working.Wait()
	for i := len(c.programs) - 1; i >= 0; i-- { // clients, the agent, servers
		p := c.programs[i]
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
			p.signal(syscall.SIGKILL)
			<-p.done
			c.t.Errorf("%s did not end on SIGTERM", filepath.Base(p.cmd.Path))
		}
		if strings.Contains(p.out.String(), "DATA RACE") {
			c.t.Errorf("%s has a data race:\n%s", filepath.Base(p.cmd.Path), p.out)
		}
	}
	for _, w := range c.workers {
		w.gate.Close()
	}
	if c.agentGate != nil {
		c.agentGate.Close()
	}
	c.nothingLeft()
}

// nothingLeft waits until no process of this run is left: some end by
// themselves, a moment after what they waited for.
func (c *chaos) nothingLeft() {
	c.t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		left := marked(c.mark)
		if len(left) == 0 {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			c.t.Errorf("processes are left behind: %q", left)
			return
		}
	}
}

// marked lists the processes that have the mark in their environment.
func marked(mark string) (commands []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		// It may be somebody else's, or have ended.
		if env, err := os.ReadFile(file); err != nil || !bytes.Contains(env, []byte(mark)) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		commands = append(commands, strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")))
	}
	return commands
}

// report prints, where something went wrong, all that is known of it.
func (c *chaos) report() {
	if !c.t.Failed() {
		return
	}
	const tail, lastServers = 16 << 10, 4
	c.t.Logf("CHAOS_SEED=%d repeats the decisions; the schedule was:\n%s", c.seed, strings.Join(c.journal, "\n"))
	servers := 0
	for i := len(c.programs) - 1; i >= 0; i-- {
		p := c.programs[i]
		name := filepath.Base(p.cmd.Path)
		if name == "server" {
			if servers++; servers > lastServers {
				continue
			}
		}
		text := p.out.String()
		c.t.Logf("%s %d printed, at last:\n%s", name, p.cmd.Process.Pid, text[max(0, len(text)-tail):])
	}
	for _, w := range c.workers {
		text := w.stderr.String()
		c.t.Logf("%s had on its standard error, at last:\n%s", w.name, text[max(0, len(text)-tail):])
	}
}
