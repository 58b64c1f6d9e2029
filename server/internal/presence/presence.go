// Package presence is what may be told of those who are connected, to people and to
// programs: the hub says it, the sessions page and the status show it. It knows
// neither of them, nor who may see what.
package presence

import "time"

// Agent is an agent that is registered. Its texts come from strangers.
type Agent struct {
	ID     string `json:"id"`
	Remote string `json:"remote"`
	// Since is when this connection was registered.
	Since time.Time `json:"since"`
	// Software and Meta are the agent's own words.
	Software string            `json:"software,omitempty"`
	Meta     map[string]string `json:"meta,omitempty"`
	// State, Users and Expires are what it said last of itself; Expires is when it
	// ends, nil if it does not.
	State   string     `json:"state,omitempty"`
	Users   int        `json:"users,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
}

// Client is a client that is connected to the agent ID.
type Client struct {
	ID      string `json:"id"`
	Session string `json:"session"`
	// First is the session with which the stream began, as the client says; ""
	// for one that began here.
	First  string    `json:"first,omitempty"`
	Remote string    `json:"remote"`
	Since  time.Time `json:"since"`
	// ToAgent and ToClient are the payload bytes so far.
	ToAgent  int64 `json:"to_agent"`
	ToClient int64 `json:"to_client"`
}
