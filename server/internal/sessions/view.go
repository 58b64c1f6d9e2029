package sessions

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"example.com/converge/pkg/pagetime"
	"example.com/converge/pkg/transport"
	"example.com/converge/server/internal/presence"
)

// view is what the template of the page is filled with.
type view struct {
	Name, Version   string
	Query           string
	Agents, Clients int // in all that the viewer may see and the filter lets through
	Hidden          int // agents beyond maxShown
	Rows            []row
}

// row is an agent, or one that is away while clients are still connected.
type row struct {
	ID, Remote, Software string
	State, Class         string
	Users                int
	Since, Expires       pagetime.Time
	Meta                 []string
	Away                 bool
	Clients              []visitor
}

type visitor struct {
	Remote, Session, First string
	Since                  pagetime.Time
	ToAgent, ToClient      string
}

// view makes what a viewer sees.
func (h *Handler) view(v Viewer, query string) view {
	now := h.now()
	agents, clients := h.cfg.Present(func(id string) bool { return strings.Contains(id, query) && v.Sees(id) })
	out := view{Name: v.Name(), Version: h.cfg.Version, Query: query, Agents: len(agents), Clients: len(clients)}
	visitors := map[string][]visitor{}
	for _, c := range clients {
		visitors[c.ID] = append(visitors[c.ID], visitor{
			Remote: transport.Printable(c.Remote), Session: c.Session, First: c.First, Since: pagetime.Since(c.Since, now),
			ToAgent: size(c.ToAgent), ToClient: size(c.ToClient),
		})
	}
	for _, a := range agents {
		r := row{
			ID: a.ID, Remote: transport.Printable(a.Remote), Software: clip(a.Software), State: a.State, Class: class(a.State), Users: a.Users,
			Since: pagetime.Since(a.Since, now), Clients: visitors[a.ID],
		}
		if a.Expires != nil {
			r.Expires = pagetime.Until(*a.Expires, now)
		}
		for name, value := range a.Meta {
			r.Meta = append(r.Meta, clip(name)+": "+clip(value))
		}
		slices.Sort(r.Meta)
		delete(visitors, a.ID)
		out.Rows = append(out.Rows, r)
	}
	for id, left := range visitors {
		out.Rows = append(out.Rows, row{ID: id, Away: true, State: "connection lost", Class: "away", Clients: left})
	}
	slices.SortStableFunc(out.Rows, func(a, b row) int {
		if (len(a.Clients) > 0) != (len(b.Clients) > 0) { // who is in is what is looked for
			if len(a.Clients) > 0 {
				return -1
			}
			return 1
		}
		return strings.Compare(a.ID, b.ID)
	})
	if len(out.Rows) > maxShown {
		out.Hidden = len(out.Rows) - maxShown
		out.Rows = out.Rows[:maxShown]
	}
	return out
}

// class is a state as the style sheet knows it.
func class(state string) string {
	switch state {
	case "waiting", "active", "lingering":
		return state
	}
	return "other"
}

// clip bounds and cleans what a stranger can put on the page.
func clip(text string) string {
	const most = 120
	if text = transport.Printable(text); len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// json answers a program.
func (h *Handler) json(w http.ResponseWriter, v Viewer, query string) {
	agents, clients := h.cfg.Present(func(id string) bool { return strings.Contains(id, query) && v.Sees(id) })
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(struct {
		Agents  []presence.Agent  `json:"agents"`
		Clients []presence.Client `json:"clients"`
	}{agents, clients})
}

// size says a number of bytes.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
