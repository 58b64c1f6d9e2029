package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder makes one with a short path.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	// Wine cannot always remove it, which is nothing to fail for.
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// place is where the agents of one test are: a folder which does not exist yet.
func place(t *testing.T) Env {
	t.Helper()
	return Env{Folders: []string{filepath.Join(folder(t), "door")}}
}

// serve starts an agent that answers with its id and what it was asked.
func serve(t *testing.T, env Env, id string) (*Server, string) {
	t.Helper()
	dir := folder(t)
	s, err := listen(dir, func(_ context.Context, r Request) Response {
		return Response{Text: string(r.Op) + " " + r.By.String(), Status: &Status{ID: id, AgentDir: dir, Users: []User{}}}
	}, nil, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, dir
}

func TestConversation(t *testing.T) {
	env := place(t)
	_, dir := serve(t, env, "a")
	env.AgentDir = dir
	for _, test := range []struct {
		request Request
		text    string
		err     string
	}{
		{Request{Op: Hold}, "hold 0s", ""},
		{Request{Op: Resume}, "resume 0s", ""},
		{Request{Op: StatusOp}, "status 0s", ""},
		{Request{Op: Share}, "share 0s", ""},
		{Request{Op: Extend, By: time.Hour}, "extend 1h0m0s", ""},
		{Request{Op: Extend}, "", "extend needs a duration above 0"},
		{Request{Op: Extend, By: -1}, "", "extend needs a duration above 0"},
		{Request{Op: Hold, By: 1}, "", "hold takes no duration"},
		{Request{Op: "stop"}, "", `does not know the request "stop"`},
	} {
		r, err := env.Do(t.Context(), "", test.request)
		if r.Text != test.text || (test.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%+v: %q, %v", test.request, r.Text, err)
		}
	}
}

// Which agent is meant.
func TestFind(t *testing.T) {
	env := place(t)
	who := func(env Env, id string) string {
		t.Helper()
		r, err := env.Do(t.Context(), id, Request{Op: StatusOp})
		if err != nil {
			return err.Error()
		}
		return r.Status.ID
	}
	want := func(env Env, id, want string) {
		t.Helper()
		if got := who(env, id); !strings.Contains(got, want) {
			t.Errorf("from %q with --id %q: %q, want %q", env.AgentDir, id, got, want)
		}
	}
	want(env, "", "no agent of this user runs here")
	a, dirA := serve(t, env, "team/a")
	want(env, "", "team/a")
	b, dirB := serve(t, env, "team/b")
	want(env, "", "2 agents run here: choose one by --id (team/a, team/b)")
	want(env, "team/b", "team/b")
	want(env, "team/c", "no agent of this user has the id team/c")
	inA, inB := Env{dirA, env.Folders}, Env{dirB, env.Folders}
	want(inA, "", "team/a")
	want(inB, "", "team/b")
	want(inB, "team/b", "team/b")
	want(inB, "team/a", "team/a") // another than this shell's

	// In a shell of one that has ended, none of the others is meant.
	b.Close()
	want(inB, "", "the agent of this shell has ended")
	want(inB, "team/a", "team/a")
	want(env, "", "team/a")
	a.Close()
	want(env, "", "no agent of this user runs here")
	if _, err := os.Stat(filepath.Join(dirA, pointerName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pointer is left behind: %v", err)
	}
}

// Two agents in one --agentdir: who ends first leaves the other's pointer alone.
func TestSharedAgentDir(t *testing.T) {
	env, dir := place(t), folder(t)
	start := func(id string) *Server {
		s, err := listen(dir, func(context.Context, Request) Response {
			return Response{Status: &Status{ID: id}}
		}, nil, env)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	first := start("first")
	start("second")
	first.Close()
	r, err := Env{dir, env.Folders}.Do(t.Context(), "", Request{Op: StatusOp})
	if err != nil || r.Status.ID != "second" {
		t.Errorf("%+v, %v", r, err)
	}
}

// raw sends bytes that no client sends, and returns the answer.
func raw(t *testing.T, address string, message []byte) (Response, error) {
	t.Helper()
	conn, err := dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	if half, ok := conn.(*net.UnixConn); ok {
		_ = half.CloseWrite()
	}
	var r Response
	err = receive(conn, &r)
	return r, err
}

func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestMalformed(t *testing.T) {
	env := place(t)
	_, dir := serve(t, env, "a")
	address, err := readPointer(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{
		string(frame(`{`)), string(frame(``)), string(frame(`{"op":"hold"} x`)), string(frame(`{"op":"hold","more":1}`)),
		string(frame(`{"op":1}`)), "\xff\xff\xff\xff", string(binary.BigEndian.AppendUint32(nil, maxMessage+1)) + "{}", // a byte too many
	} {
		if r, err := raw(t, address, []byte(message)); err != nil || !strings.Contains(r.Error, "malformed message") {
			t.Errorf("%.20q: %+v, %v", message, r, err)
		}
	}
	for _, cut := range []string{"", "\x00", string(frame(`{"op":"hold"}`)[:9])} {
		if r, err := raw(t, address, []byte(cut)); err == nil {
			t.Errorf("%q was answered: %+v", cut, r)
		}
	}
	if r, err := raw(t, address, frame(`{"op":"hold"}`)); err != nil || r.Text != "hold 0s" {
		t.Errorf("after all that: %+v, %v", r, err)
	}
}

// An answer that would be too long is none, but the server goes on.
func TestLongAnswer(t *testing.T) {
	env, dir := place(t), folder(t)
	s, err := listen(dir, func(_ context.Context, r Request) Response {
		if r.Op == Share {
			return Response{Text: strings.Repeat("x", maxMessage)}
		}
		return Response{Text: "short"}
	}, nil, env)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if r, err := env.Do(t.Context(), "", Request{Op: Share}); err == nil {
		t.Errorf("%d bytes", len(r.Text))
	}
	env.AgentDir = dir
	if r, err := env.Do(t.Context(), "", Request{Op: Hold}); err != nil || r.Text != "short" {
		t.Errorf("%+v, %v", r, err)
	}
}

// Close lets conversations end that are under way, and waits for no client that
// says nothing.
func TestClose(t *testing.T) {
	env, dir := place(t), folder(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	s, err := listen(dir, func(context.Context, Request) Response {
		close(asked)
		<-answer
		return Response{Text: "late"}
	}, nil, env)
	if err != nil {
		t.Fatal(err)
	}
	env.AgentDir = dir
	address, err := readPointer(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range maxConnections - 1 {
		silent, err := dial(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	got := make(chan Response, 1)
	go func() {
		r, _ := env.Do(context.Background(), "", Request{Op: Resume})
		got <- r
	}()
	<-asked
	closed := make(chan struct{})
	go func() {
		s.Close()
		close(closed)
	}()
	<-s.closing
	close(answer)
	if r := <-got; r.Text != "late" {
		t.Errorf("the last answer: %+v", r)
	}
	<-closed
	s.Close() // harmless
	if _, err := env.Do(t.Context(), "", Request{Op: Hold}); err == nil {
		t.Error("somebody answers after Close")
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(frame(`{"op":"extend","by":60000000000}`))
	f.Add(frame(`{"op":"status"}`))
	f.Add(frame(`{}{}`))
	f.Add([]byte("\x7f\xff\xff\xff{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := strings.NewReader(string(data))
		var request Request
		if receive(r, &request) != nil || request.validate() != nil {
			return
		}
		if read := len(data) - r.Len(); read > maxMessage+4 {
			t.Errorf("%d bytes were read", read)
		}
		var again strings.Builder
		if err := send(&again, request); err != nil {
			t.Fatal(err)
		}
		var same Request
		if err := receive(strings.NewReader(again.String()), &same); err != nil || same != request {
			t.Errorf("%+v became %+v, %v", request, same, err)
		}
	})
}

// The status has a place for everything in its JSON form, also for what is not.
func TestStatusJSON(t *testing.T) {
	text, err := json.Marshal(Status{Users: []User{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"deadline":null`, `"limit":null`, `"remaining_seconds":null`, `"users":[]`, `"held":false`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %s", text, want)
		}
	}
}
