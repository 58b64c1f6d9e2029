//go:build unix

package main

import (
	"io"
	"strings"
	"syscall"
	"testing"

	"example.com/converge/pkg/resume"
	"example.com/converge/pkg/resume/resumetest"
)

// TestResumes goes on after its connection, and logs that.
func TestResumes(t *testing.T) {
	f, err := resumetest.New(resume.HubConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.End)
	p := start(t, "0", f.ClientURL()+f.Pin())
	conn := p.dial(t)
	word := func(text string) {
		t.Helper()
		got := make([]byte, len(text))
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
			t.Fatalf("read %q, %v, want %q", got, err, text)
		}
	}
	word("before")
	stream := <-f.Streams
	f.Down(true)
	f.Cut()
	if !f.Stall() {
		t.Fatal("it does not try to come back")
	}
	f.Down(false)
	word("after")
	_ = conn.CloseWrite()
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Errorf("read %q, %v at the end", rest, err)
	}
	<-stream.Done()
	logged := p.end(t, syscall.SIGTERM)
	for _, want := range []string{"connection lost: reconnecting", "window=5m0s", "connected again", "connection ended"} {
		if !strings.Contains(logged, want) {
			t.Errorf("no %q in %s", want, logged)
		}
	}
}

// TestWrongPin tells a local ssh client in SSH's words.
func TestWrongPin(t *testing.T) {
	f, err := resumetest.New(resume.HubConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.End)
	p := start(t, "0", f.ClientURL()+"#"+strings.Repeat("A", 43))
	said, err := io.ReadAll(p.dial(t))
	if want := "the far end is not the agent that the URL names"; err != nil || !strings.Contains(string(said), want) {
		t.Errorf("the local end was told %q, %v", said, err)
	}
	if logged := p.end(t, syscall.SIGTERM); !strings.Contains(logged, "cannot connect") {
		t.Errorf("it logged %s", logged)
	}
}
