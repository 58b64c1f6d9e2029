// Command hostile is a rendezvous server in the wrong hands, for the end-to-end
// tests. It stands before an honest one, speaks the rendezvous protocol both
// ways, and behaves, until it is told to play a trick: to show a host key of its
// own, to lead clients to another agent, to use what it saw of a registration,
// to make the two ends agree on less than they can, to change what they say. It
// has nothing that whoever runs a server would not have, and decides nothing:
// the tests tell it what to do, and look at what it got.
//
// It listens twice: for agents and clients, and for its orders.
//
//	GET /turn?trick=NAME&other=ID   play a trick from now on, with the next client
//	GET /replay?id=ID&server=ADDR   say again what the agent ID said, word for word
//	GET /steal?id=ID&as=ID&server=ADDR
//	                                register with that agent's credential and ticket
//	                                and a key of one's own, and serve clients
//	GET /seen                       what it has seen, as JSON
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func run() error {
	server := flag.String("server", "", "`HOST:PORT` of the honest server")
	cert := flag.String("tls-cert", "", "`FILE` with a certificate of its own, to serve wss")
	key := flag.String("tls-key", "", "`FILE` with its key")
	flag.Parse()
	r, err := newRelay(*server)
	if err != nil {
		return err
	}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("cannot listen for agents and clients: %w", err)
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("cannot listen for orders: %w", err)
	}
	fmt.Printf("relay=%s control=%s\n", public.Addr(), control.Addr())
	failed := make(chan error, 2)
	go func() { failed <- newServer(r.orders()).Serve(control) }()
	go func() {
		if *cert != "" {
			failed <- newServer(r).ServeTLS(public, *cert, *key)
			return
		}
		failed <- newServer(r).Serve(public)
	}()
	return <-failed // the end of a test is a signal
}

func newServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
}
