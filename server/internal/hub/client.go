package hub

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
)

// visitor is a client that has been let in.
type visitor struct {
	hub        *Hub
	id, remote string
	number     uint64
	session    string // its id
	first      string // the id of the stream's first connection, as the client says, or ""
	protocol   string // agreed on with the agent, "" for none
	start      time.Time
	dialled    bool // the agent's connection was dialled back, not parked
	pass       Pass

	mu      sync.Mutex
	relay   *frame.Session // nil until started
	over    bool
	revoked bool
}

// log is the hub's, with what tells the client from others.
func (v *visitor) log() *slog.Logger {
	log := v.hub.log.With("id", v.id, "client", v.number, "session", v.session, "remote", v.remote)
	if v.first != "" {
		log = log.With("first", v.first)
	}
	return log
}

// ServeClient answers /client/ID: it joins the client with a connection that
// the agent has parked, or asks the agent to dial back.
func (h *Hub) ServeClient(w http.ResponseWriter, r *http.Request, id string) {
	pass := h.passOf(r)
	if !h.admit(w, r, pass) {
		return
	}
	session := pass.Session()
	answer := http.Header{rendezvous.SessionHeader: {session}}
	w.Header().Set(rendezvous.SessionHeader, session) // of a refusal
	joined, end := false, End{Status: http.StatusNotFound, Reason: "no such agent"}
	defer func() {
		if !joined { // otherwise the session's end does it
			pass.Ended(end)
			h.wg.Done()
		}
	}()
	a, ok := h.agents.Lookup(id)
	if !ok {
		text := fmt.Sprintf("no agent is registered as %q: check the id, or the job may have ended", id)
		if until, kept := h.agents.Reserved(id); kept {
			retryAfter(w)
			end.Away, end.Reason = true, "the agent has lost its connection"
			text = fmt.Sprintf("the agent %q has lost its connection and may come back until %s: try again in a moment", id, clock(until))
		}
		refuse(w, http.StatusNotFound, text)
		return
	}
	v := &visitor{hub: h, id: id, remote: h.cfg.RemoteOf(r), number: h.count.Add(1), session: session, pass: pass}
	if first := r.Header.Get(rendezvous.SessionHeader); rendezvous.ValidSession(first) {
		v.first = first
	}
	for _, p := range a.protocols {
		if frame.Offered(r, p) {
			v.protocol = p
			break
		}
	}
	spare := a.takeSpare()
	var data frame.Peer
	if spare == nil {
		var status int
		var err error
		if data, status, err = h.call(r.Context(), a, v); err != nil {
			v.log().Warn("client refused", "status", status, "err", err)
			refuse(w, status, err.Error())
			end = End{Status: status, Reason: err.Error()}
			return
		}
		v.dialled = true
	}
	h.cfg.Opened()
	client, err := frame.AcceptWith(w, r, v.protocol, answer)
	if err != nil {
		h.cfg.Closed()
		end = End{Status: http.StatusBadRequest, Reason: err.Error()}
		v.log().Warn("client's handshake failed", "err", err)
		switch {
		case spare == nil:
			_ = data.Conn.Close()
			h.cfg.Closed()
		case !a.keep(spare):
			spare.orphan()
		}
		return
	}
	v.log().Info("client connected", "parked", spare != nil)
	v.start, joined = time.Now(), true
	h.present.arrive(v)
	pass.Joined(v.number, v.revoke)
	if spare == nil {
		v.started(frame.Join(client, data, h.options(), v.done))
	} else {
		v.started(spare.join(v, client))
	}
}

// started is told which session is the visitor's.
func (v *visitor) started(s *frame.Session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.over {
		v.relay = s
		v.hub.track(s)
	}
	if v.revoked {
		v.hub.later(func() { s.CloseWith(frame.ClosePolicy, "the credential is good no more") })
	}
}

// done is called when the session has ended.
func (v *visitor) done(stats frame.Stats) {
	v.mu.Lock()
	v.over = true
	if v.relay != nil {
		v.hub.untrack(v.relay)
	}
	v.mu.Unlock()
	v.hub.present.depart(v, stats)
	v.log().Info("client ended", "to_agent", stats.AToB, "to_client", stats.BToA,
		"seconds", time.Since(v.start).Round(time.Millisecond).Seconds(), "end", stats.End)
	v.pass.Ended(End{Reason: stats.End, ToAgent: stats.AToB, ToClient: stats.BToA})
	v.hub.cfg.Closed()
	if v.dialled {
		v.hub.cfg.Closed()
	}
	v.hub.wg.Done()
}

// call gets a data connection from the agent. The status goes with an error.
func (h *Hub) call(ctx context.Context, a *agent, who *visitor) (frame.Peer, int, error) {
	number := who.number
	v := &visit{agent: a, token: newToken(), answer: make(chan answer, 1)}
	h.vmu.Lock()
	h.visits[number] = v
	h.vmu.Unlock()

	timer := time.NewTimer(h.dialWait)
	defer timer.Stop()
	status := http.StatusBadGateway
	err := a.tell(rendezvous.Message{Dial: &rendezvous.Dial{Client: number, Token: v.token, Remote: who.remote, Protocol: who.protocol, Session: who.session}})
	if err != nil {
		who.log().Warn("cannot tell an agent of a client", "err", err)
		err = errors.New("the agent cannot be reached: its connection has just broken")
	} else {
		select {
		case got := <-v.answer:
			return got.data, status, got.err
		case <-a.gone:
			err = errors.New("the agent went away: the job may have ended")
		case <-timer.C:
			status, err = http.StatusGatewayTimeout, errors.New("the agent did not answer in time: its machine may be gone or overloaded")
		case <-ctx.Done():
			err = errors.New("the client went away")
		case <-h.ctx.Done():
		}
	}
	if h.ctx.Err() != nil { // whatever else it brought about
		status, err = http.StatusServiceUnavailable, errEnding
	}
	if !h.take(number, v) {
		// The agent's connection is on its way to us: there is no turning
		// back for the one who took the visit.
		if got := <-v.answer; got.err == nil {
			_ = got.data.Conn.Close()
			h.cfg.Closed()
		}
	}
	return frame.Peer{}, status, err
}

// take removes the visit; the one who gets true must answer it.
func (h *Hub) take(number uint64, v *visit) bool {
	h.vmu.Lock()
	defer h.vmu.Unlock()
	if h.visits[number] != v {
		return false
	}
	delete(h.visits, number)
	return true
}

// ServeData answers /data: an agent's dial-back for one client, or the
// connection that it has leave to park.
func (h *Hub) ServeData(w http.ResponseWriter, r *http.Request) {
	pass, end := h.passOf(r), End{}
	if !h.admit(w, r, pass) {
		return
	}
	defer func() { pass.Ended(end) }()
	parked := false
	defer func() {
		if !parked { // otherwise the connection's end does it
			h.wg.Done()
		}
	}()
	number, _ := strconv.ParseUint(r.Header.Get(rendezvous.ClientHeader), 10, 64)
	h.vmu.Lock()
	v := h.visits[number]
	h.vmu.Unlock()
	if v == nil || subtle.ConstantTimeCompare([]byte(v.token), []byte(r.Header.Get(rendezvous.TokenHeader))) != 1 || !h.take(number, v) {
		end = End{Status: http.StatusForbidden, Reason: "nobody waits for it"}
		refuse(w, http.StatusForbidden, "nobody waits for this connection: the client may have given up")
		return
	}
	if v.answer == nil && !time.Now().Before(v.until) {
		refuse(w, http.StatusForbidden, "it is too late to park this connection: ask again")
		return
	}
	h.cfg.Opened()
	data, err := frame.Accept(w, r, "")
	if err != nil {
		h.cfg.Closed()
		h.log.Warn("agent's data handshake failed", "client", number, "err", err)
		if v.answer != nil {
			v.answer <- answer{err: errors.New("the agent's connection failed")}
		}
		return
	}
	if v.answer == nil {
		parked = true
		h.serveSpare(data, v.agent)
		return
	}
	v.answer <- answer{data: data}
}
