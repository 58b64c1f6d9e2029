package announce

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/rendezvous"
)

func TestShare(t *testing.T) {
	server, _, err := rendezvous.ParseAgentURL("ws://host/agent/x")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	if err != nil {
		t.Fatal(err)
	}
	a := Access{Server: server, ID: "x", User: "abc", HostKey: key, Wsproxy: "wsproxy", Password: "top-secret", Options: []string{"-i~/key"}}
	plain := strings.TrimPrefix(a.SSH(), "ssh ")
	if got, want := a.Join(), "ssh -t -s "+plain+" converge-join"; got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	if got, want := a.Watch(), "ssh -t -s "+plain+" converge-watch"; got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	text := a.Share()
	for _, want := range []string{"\n  " + a.Join() + "\n", "\n  " + a.Watch() + "\n", "password is in the job's log"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "top-secret") || !strings.HasSuffix(text, "\n") {
		t.Errorf("%s", text)
	}
	a.Password = ""
	if text := a.Share(); strings.Contains(text, "password") {
		t.Errorf("%s", text)
	}
}
