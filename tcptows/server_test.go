package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"example.com/converge/pkg/frame"
)

// newFake starts a websocket server that sends back what comes, after the
// header X-Test, and has no agent with the id none. It returns its URL.
func newFake(t *testing.T) (url string) {
	var handlers sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers.Add(1)
		defer handlers.Done()
		if strings.HasSuffix(r.URL.Path, "/none") {
			http.Error(w, "there is no agent none: has its job ended?", http.StatusNotFound)
			return
		}
		peer, err := frame.Accept(w, r, "")
		if err != nil {
			t.Error(err)
			return
		}
		conn := frame.Server(peer.Conn, io.MultiReader(bytes.NewReader(peer.Early), peer.Conn), frame.Options{})
		defer conn.Close()
		_, _ = io.WriteString(conn, r.Header.Get("X-Test"))
		_, _ = io.Copy(conn, conn)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		handlers.Wait()
	})
	return "ws" + strings.TrimPrefix(server.URL, "http")
}
