package main

import (
	"runtime"
	"time"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/debug"
	"example.com/converge/server/internal/front"
	"example.com/converge/server/internal/hub"
)

// standing is what there is to say of a server that serves: its status and its
// figures. All of it is set before anybody asks.
type standing struct {
	*prepared
	started time.Time
	address string
	keeper  *doorkeeper
	joiner  *hub.Hub
	budget  *front.Budget
	door    *front.Front
	changes *reloader
	pages   sessionPages
}

// live are the figures that are asked for.
func (s *standing) live() debug.Live {
	l := debug.Live{
		Version: cmdline.Version(), Moved: s.joiner.Moved, Parked: s.joiner.Parked, Kept: s.joiner.Kept,
		Connections: s.budget.Connections, Ready: s.door.Ready, AuditLost: s.keeper.trail.Lost, Viewers: s.pages.live,
		Reload: func() (time.Time, bool) {
			at, problem := s.changes.state()
			return at, problem == ""
		},
	}
	if s.pair != nil {
		l.CertificateEnd = s.pair.End
	}
	return l
}

// status is what server status asks for.
func (s *standing) status() debug.Status {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	open, limit := s.budget.Connections()
	at, problem := s.changes.state()
	toAgent, toClient := s.joiner.Moved()
	out := debug.Status{
		Version: cmdline.Version(), Started: s.started.UTC(), Now: time.Now().UTC(),
		Address: s.address, TLS: s.pair != nil, Ready: s.door.Ready(),
		Open: open, Limit: limit, Parked: s.joiner.Parked(), Kept: s.joiner.Kept(), Viewers: s.pages.live(),
		ToAgent: toAgent, ToClient: toClient,
		Loaded: at.UTC(), Problem: problem, AuditLost: s.keeper.trail.Lost(),
		Memory: memory.Sys - memory.HeapReleased, Goroutines: runtime.NumGoroutine(),
	}
	out.Access = "open: agents and clients need no token"
	if agents, clients := s.guard.Everybody(access.Agent), s.guard.Everybody(access.Client); !agents || !clients {
		out.Access = s.guard.Describe()
		switch {
		case agents:
			out.Access += "; agents need no token"
		case clients:
			out.Access += "; clients need no token"
		}
	}
	if s.pair != nil {
		end := s.pair.End().UTC()
		out.CertificateEnd = &end
	}
	out.Agents, out.Clients = s.joiner.Present(func(string) bool { return true })
	return out
}
