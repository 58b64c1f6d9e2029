package hub

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/transport"
	"example.com/converge/pkg/wsconn"
	"example.com/converge/server/internal/fakeagent"
)

func wantRefusedOneOf(t *testing.T, err error, statuses ...int) {
	t.Helper()
	var refused *transport.RefusedError
	if errors.As(err, &refused) {
		for _, status := range statuses {
			if refused.Status == status {
				return
			}
		}
	}
	t.Errorf("got %v, want an answer with a status of %v", err, statuses)
}

func TestShutdown(t *testing.T) {
	f := serve(t, nil)
	busy := f.register("busy", fakeagent.NewKey())
	silent := f.register("silent", fakeagent.NewKey())
	newcomer := f.connect("newcomer") // has said nothing yet

	waiting := f.dialLater("busy")
	d, err := busy.Dialled()
	if err != nil {
		t.Fatal(err)
	}
	data, err := busy.DialBack(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = data.Close() })
	client := wait(t, "the client", waiting)
	if client.err != nil {
		t.Fatal(client.err)
	}
	patient := f.dialLater("silent") // will never be dialled back
	if _, err := silent.Dialled(); err != nil {
		t.Fatal(err)
	}

	ended := make(chan struct{})
	go func() { f.shutdown(); close(ended) }()
	for name, a := range map[string]*fakeagent.Agent{"busy": busy, "silent": silent, "newcomer": newcomer} {
		t.Log(name)
		wantGone(t, a, wsconn.ServiceRestart)
	}
	wantRefused(t, wait(t, "the waiting client's end", patient).err, http.StatusServiceUnavailable, "the server is ending")
	for name, conn := range map[string]*frame.Conn{"client": client.conn, "data": data} {
		_, err := io.Copy(io.Discard, conn)
		var closed *frame.CloseError
		if !errors.As(err, &closed) || closed.Code != frame.CloseServiceRestart {
			t.Errorf("the %s connection ended with %v, want close code 1012", name, err)
		}
	}
	wait(t, "the end of Shutdown", ended)

	// Nobody comes in any more.
	_, err = f.dial("silent")
	wantRefused(t, err, http.StatusServiceUnavailable, "the server is ending")
	_, err = fakeagent.Connect(t.Context(), f.rv, "late", nil)
	wantRefused(t, err, http.StatusServiceUnavailable, "the server is ending")
	_, err = busy.DialBack(t.Context(), d)
	wantRefused(t, err, http.StatusServiceUnavailable, "the server is ending")
	f.noVisits()
}

// TestShutdownHasALimit: the caller does not wait longer than it wants.
func TestShutdownHasALimit(t *testing.T) {
	f := serve(t, nil)
	f.register("job", fakeagent.NewKey())
	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	if err := f.hub.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	f.shutdown() // and once more, to the end
}
