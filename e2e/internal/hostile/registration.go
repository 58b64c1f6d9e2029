package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"strconv"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/wsconn"
)

// registration is what an agent said when it registered.
type registration struct {
	header http.Header
	hello  rendezvous.Message
	proof  rendezvous.Message
	ticket []byte // the newest
}

// serveAgent carries an agent's control connection message by message, and
// remembers what could be used.
func (r *relay) serveAgent(w http.ResponseWriter, req *http.Request, id string) {
	far, err := r.dial(req.Context(), r.server.AgentURL(id), req.Header)
	if err != nil {
		refuse(w, err)
		return
	}
	near, err := wsconn.Accept(w, req, wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2})
	if err != nil {
		_ = far.Close()
		return
	}
	header := req.Header.Clone()
	record := func(change func(*registration)) {
		r.mu.Lock()
		defer r.mu.Unlock()
		kept := r.recorded[id]
		kept.header = header
		change(&kept)
		r.recorded[id] = kept
	}
	join(near, far, func() error {
		return messages(far, near, func(m rendezvous.Message) {
			switch {
			case m.Hello != nil:
				record(func(kept *registration) { kept.hello = m })
			case m.Proof != nil:
				record(func(kept *registration) { kept.proof = m })
			}
		})
	}, func() error {
		return messages(near, far, func(m rendezvous.Message) {
			ticket := m.Ticket
			if m.Registered != nil {
				ticket = m.Registered.Ticket
			}
			if ticket != nil {
				record(func(kept *registration) { kept.ticket = bytes.Clone(ticket.Value) })
			}
		})
	})
}

// messages passes control messages on.
func messages(dst, src *wsconn.Conn, look func(rendezvous.Message)) error {
	for {
		m, err := rendezvous.Receive(src)
		if err != nil {
			return err
		}
		look(m)
		if err := rendezvous.Send(dst, m); err != nil {
			return err
		}
	}
}

func (r *relay) registration(id string) registration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recorded[id]
}

// replay says to a server what an agent has said, word for word, and returns
// how that ended.
func (r *relay) replay(id string, server rendezvous.Server) string {
	kept := r.registration(id)
	conn, err := r.dial(context.Background(), server.AgentURL(id), kept.header)
	if err != nil {
		return "not let in: " + err.Error()
	}
	defer conn.Close()
	if answer := ask(conn, kept.hello); answer.Challenge == nil {
		return outcome(answer)
	}
	return outcome(ask(conn, kept.proof))
}

// steal registers with an agent's credential and ticket and a key of its own.
// If that succeeds it is the agent from then on, to all who come.
func (r *relay) steal(id, as string, server rendezvous.Server) string {
	kept := r.registration(id)
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err.Error()
	}
	header := http.Header{}
	if given := kept.header.Get("Authorization"); given != "" {
		header.Set("Authorization", given)
		header.Set(rendezvous.KeyHeader, base64.RawURLEncoding.EncodeToString(public))
	}
	conn, err := r.dial(context.Background(), server.AgentURL(as), header)
	if err != nil {
		return "not let in: " + err.Error()
	}
	answer := ask(conn, rendezvous.Message{Hello: &rendezvous.Hello{
		Version: rendezvous.MinVersion, MinVersion: rendezvous.MinVersion, Key: public, Ticket: kept.ticket,
	}})
	if answer.Challenge == nil {
		_ = conn.Close()
		return outcome(answer)
	}
	answer = ask(conn, rendezvous.Message{Proof: rendezvous.Prove(key, answer.Challenge.Nonce, as)})
	if answer.Registered == nil {
		_ = conn.Close()
		return outcome(answer)
	}
	go r.impersonate(conn, server) // until the server or the test ends it
	return outcome(answer)
}

// impersonate serves the clients of an id.
func (r *relay) impersonate(conn *wsconn.Conn, server rendezvous.Server) {
	defer conn.Close()
	for {
		m, err := rendezvous.Receive(conn)
		if err != nil {
			return
		}
		if m.Dial == nil {
			continue
		}
		back, err := r.dial(context.Background(), server.DataURL(), http.Header{
			rendezvous.ClientHeader: {strconv.FormatUint(m.Dial.Client, 10)}, rendezvous.TokenHeader: {m.Dial.Token},
		})
		if err == nil {
			go r.serveSSH(back)
		}
	}
}

// ask sends a message and returns the answer; where there is none, nothing is
// set in it.
func ask(conn *wsconn.Conn, m rendezvous.Message) rendezvous.Message {
	if err := rendezvous.Send(conn, m); err != nil {
		return rendezvous.Message{}
	}
	answer, err := rendezvous.Receive(conn)
	if err != nil {
		return rendezvous.Message{}
	}
	return answer
}

// outcome words an answer.
func outcome(m rendezvous.Message) string {
	switch {
	case m.Registered != nil:
		return "registered"
	case m.Refused != nil:
		return "refused (" + m.Refused.Code + "): " + m.Refused.Text
	}
	return "no answer"
}
