package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/pkg/wsconn"
)

// dialWait bounds reaching the honest server, which is on this machine.
const dialWait = time.Minute

// The tricks, as /turn names them. All but the first four speak to each end
// as if the other knew nothing of resumable streams.
const (
	honest     = "honest"
	otherAgent = "other-agent" // clients get the agent other
	redirect   = "redirect"    // clients are sent to the server other, by HTTP
	// plain changes nothing but that; with other it leads there.
	plain   = "plain"
	swapKey = "swap-key" // SSH ends here
)

// relay is the hostile server.
type relay struct {
	server    rendezvous.Server // the honest one
	forward   http.Handler      // to it
	transport *http.Transport
	ssh       *ssh.ServerConfig

	mu       sync.Mutex
	trick    string
	other    string
	recorded map[string]registration // by id
	seen     seen
}

// seen is what it gets to know.
type seen struct {
	// Clients is how many came, by the trick that was played on them.
	Clients map[string]int `json:"clients"`
	// Exchanged is how many SSH key exchanges clients finished with its key.
	Exchanged int `json:"exchanged"`
	// Logins and Commands are what SSH clients told it: METHOD USER [PASSWORD].
	Logins   []string `json:"logins"`
	Commands []string `json:"commands"`
	// Credentials are the Authorization headers of agents and clients.
	Credentials []string `json:"credentials"`
}

func newRelay(server string) (*relay, error) {
	r := &relay{
		server: rendezvous.Server{Host: server}, transport: &http.Transport{DisableKeepAlives: true},
		trick: honest, recorded: map[string]registration{}, seen: seen{Clients: map[string]int{}},
	}
	r.forward = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server})
	var err error
	r.ssh, err = r.impostor()
	return r, err
}

// orders serves the test.
func (r *relay) orders() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /turn", func(w http.ResponseWriter, req *http.Request) {
		trick := req.FormValue("trick")
		if _, rewrites := rewriters[trick]; !rewrites && !slices.Contains([]string{honest, otherAgent, redirect, plain, swapKey}, trick) {
			http.Error(w, "there is no such trick", http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.trick, r.other = trick, req.FormValue("other")
	})
	mux.HandleFunc("GET /replay", func(w http.ResponseWriter, req *http.Request) {
		_, _ = fmt.Fprint(w, r.replay(req.FormValue("id"), rendezvous.Server{Host: req.FormValue("server")}))
	})
	mux.HandleFunc("GET /steal", func(w http.ResponseWriter, req *http.Request) {
		_, _ = fmt.Fprint(w, r.steal(req.FormValue("id"), req.FormValue("as"), rendezvous.Server{Host: req.FormValue("server")}))
	})
	mux.HandleFunc("GET /seen", func(w http.ResponseWriter, _ *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		_ = json.NewEncoder(w).Encode(r.seen)
	})
	return mux
}

// note changes what was seen.
func (r *relay) note(change func(s *seen)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.seen)
}

// ServeHTTP serves agents and clients.
func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if given := req.Header.Get("Authorization"); given != "" {
		r.note(func(s *seen) { s.Credentials = append(s.Credentials, given) })
	}
	if id, ok := strings.CutPrefix(req.URL.Path, "/agent/"); ok {
		r.serveAgent(w, req, id)
		return
	}
	id, ok := strings.CutPrefix(req.URL.Path, "/client/")
	if !ok {
		r.forward.ServeHTTP(w, req)
		return
	}
	r.mu.Lock()
	trick, other := r.trick, r.other
	r.seen.Clients[trick]++
	r.mu.Unlock()
	switch trick {
	case honest:
		r.forward.ServeHTTP(w, req)
	case otherAgent:
		req.URL.Path, req.URL.RawPath = "/client/"+other, ""
		r.forward.ServeHTTP(w, req)
	case redirect:
		http.Redirect(w, req, "ws://"+other+req.URL.Path, http.StatusTemporaryRedirect)
	case swapKey:
		if near, err := wsconn.Accept(w, req, wsconn.Options{}); err == nil {
			r.serveSSH(near)
		}
	default:
		if other != "" {
			id = other
		}
		r.joinClient(w, req, id, rewriters[trick])
	}
}

// dial opens a websocket to a server, with some of the headers of a request.
func (r *relay) dial(ctx context.Context, rawURL string, header http.Header) (*wsconn.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	kept := http.Header{}
	for _, name := range []string{"Authorization", rendezvous.KeyHeader, rendezvous.ClientHeader, rendezvous.TokenHeader} {
		if values := header.Values(name); len(values) > 0 {
			kept[http.CanonicalHeaderKey(name)] = values
		}
	}
	return wsconn.Dial(ctx, rawURL, r.transport, kept, wsconn.Options{MaxMessage: 1 << 20})
}

// refuse passes on how the honest server refused somebody.
func refuse(w http.ResponseWriter, err error) {
	var refused *transport.RefusedError
	if errors.As(err, &refused) {
		http.Error(w, refused.Text, refused.Status)
		return
	}
	http.Error(w, err.Error(), http.StatusBadGateway)
}

// joinClient joins a client with an agent, by two streams of bytes without any
// subprotocol, and changes what the rewriters want.
func (r *relay) joinClient(w http.ResponseWriter, req *http.Request, id string, change rewriter) {
	far, err := r.dial(req.Context(), r.server.ClientURL(id), req.Header)
	if err != nil {
		refuse(w, err)
		return
	}
	near, err := wsconn.Accept(w, req, wsconn.Options{MaxMessage: 1 << 20})
	if err != nil {
		_ = far.Close()
		return
	}
	join(near, far,
		func() error { return change.copy(far, near, change.client) },
		func() error { return change.copy(near, far, change.agent) })
}

// join runs both directions until either ends, and closes both ends.
func join(a, b *wsconn.Conn, directions ...func() error) {
	var moving sync.WaitGroup
	ended := make(chan error, len(directions))
	for _, direction := range directions {
		moving.Go(func() { ended <- direction() })
	}
	err := <-ended
	code := wsconn.NormalClosure
	var closed *wsconn.CloseError
	if errors.As(err, &closed) {
		code = closed.Code
	}
	_, _ = a.CloseWith(code, ""), b.CloseWith(code, "")
	moving.Wait()
}

// copyBytes moves what there is as it is.
func copyBytes(dst net.Conn, src io.Reader) error {
	_, err := io.Copy(dst, src)
	return err
}
