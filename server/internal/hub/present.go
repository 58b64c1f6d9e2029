package hub

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/presence"
)

// present is who is here, for those who look: the sessions page, the status
// and the figures.
type present struct {
	mu      sync.Mutex
	agents  map[*agent]struct{} // registered; one that was displaced is there until it is closed
	clients map[*visitor]struct{}
	// toAgent and toClient are the bytes of the sessions that have ended.
	toAgent, toClient int64
}

func newPresent() present {
	return present{agents: map[*agent]struct{}{}, clients: map[*visitor]struct{}{}}
}

// about is what an agent said of itself.
type about struct {
	software string
	meta     map[string]string
	since    time.Time
	status   *rendezvous.Status // nil if it said none
}

func (p *present) register(a *agent, hello *rendezvous.Hello) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.about = about{software: hello.Software, meta: hello.Meta, since: time.Now()}
	p.agents[a] = struct{}{}
}

func (p *present) tell(a *agent, status *rendezvous.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.about.status = status
}

func (p *present) forget(a *agent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.agents, a)
}

func (p *present) arrive(v *visitor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients[v] = struct{}{}
}

// depart moves a client's bytes to those of the others that have ended, in one
// step, so that their sum never sinks.
func (p *present) depart(v *visitor, stats frame.Stats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, v)
	p.toAgent += stats.AToB
	p.toClient += stats.BToA
}

// Present returns who is here, agents by their ids and clients in the order in
// which they came, of the ids for which shown returns true. Nothing waits for
// shown.
func (h *Hub) Present(shown func(id string) bool) (agents []presence.Agent, clients []presence.Client) {
	agents, clients = []presence.Agent{}, []presence.Client{}
	type one struct {
		*agent
		about about
	}
	p := &h.present
	p.mu.Lock()
	everybody := make([]one, 0, len(p.agents))
	for a := range p.agents {
		everybody = append(everybody, one{a, a.about})
	}
	visitors := slices.AppendSeq(make([]*visitor, 0, len(p.clients)), maps.Keys(p.clients))
	p.mu.Unlock()
	for _, a := range everybody {
		if holder, ok := h.agents.Lookup(a.id); !ok || holder != a.agent || !shown(a.id) {
			continue
		}
		told := presence.Agent{
			ID: a.id, Remote: a.remote, Since: a.about.since.UTC(), Software: a.about.software, Meta: a.about.meta,
		}
		if status := a.about.status; status != nil {
			told.State, told.Users = status.State, status.Users
			if status.Expires != 0 {
				end := time.Unix(status.Expires, 0).UTC()
				told.Expires = &end
			}
		}
		agents = append(agents, told)
	}
	slices.SortFunc(visitors, func(a, b *visitor) int { return cmp.Compare(a.number, b.number) })
	for _, v := range visitors {
		if !shown(v.id) {
			continue
		}
		toAgent, toClient := v.moved()
		clients = append(clients, presence.Client{
			ID: v.id, Session: v.session, First: v.first, Remote: v.remote, Since: v.start.UTC(),
			ToAgent: toAgent, ToClient: toClient,
		})
	}
	slices.SortFunc(agents, func(a, b presence.Agent) int { return cmp.Compare(a.ID, b.ID) })
	return agents, clients
}

// moved is how many bytes the visitor's session has moved so far.
func (v *visitor) moved() (toAgent, toClient int64) {
	v.mu.Lock()
	relay := v.relay
	v.mu.Unlock()
	if relay == nil {
		return 0, 0
	}
	return relay.Moved()
}

// Moved returns the payload bytes of all sessions since the start. It never
// sinks.
func (h *Hub) Moved() (toAgent, toClient int64) {
	p := &h.present
	p.mu.Lock()
	defer p.mu.Unlock()
	toAgent, toClient = p.toAgent, p.toClient
	for v := range p.clients {
		a, c := v.moved()
		toAgent += a
		toClient += c
	}
	return toAgent, toClient
}

// Parked returns how many connections agents have parked.
func (h *Hub) Parked() int {
	p := &h.present
	p.mu.Lock()
	defer p.mu.Unlock()
	parked := 0
	for a := range p.agents {
		a.mu.Lock()
		if a.spare != nil {
			parked++
		}
		a.mu.Unlock()
	}
	return parked
}

// Kept returns how many ids are kept for agents that have lost their
// connections.
func (h *Hub) Kept() int { return h.agents.Kept() }
