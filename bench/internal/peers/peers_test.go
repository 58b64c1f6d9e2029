//go:build linux

package peers

import (
	"slices"
	"testing"

	"go.uber.org/goleak"

	"example.com/converge/bench/carrier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSelect(t *testing.T) {
	all, err := Select(nil)
	if err != nil || len(all) != len(All()) {
		t.Fatalf("%d peers, %v, want all", len(all), err)
	}
	// In the order of the tables, whatever order was asked for.
	some, err := Select([]string{"yamux", Direct})
	if err != nil || len(some) != 2 || some[0].Name != Direct || some[1].Name != "yamux" {
		t.Errorf("got %v, %v", some, err)
	}
	if _, err := Select([]string{Direct, "nobody"}); err == nil {
		t.Error("a peer that is none was taken")
	}
}

func TestPeersAreWhole(t *testing.T) {
	var names []string
	for _, p := range All() {
		if p.Name == "" || p.Path == "" || p.start == nil || !p.Raw && !p.SSH {
			t.Errorf("%+v lacks something", p)
		}
		if slices.Contains(names, p.Name) {
			t.Errorf("%s is there twice", p.Name)
		}
		names = append(names, p.Name)
	}
	for _, name := range []string{Converge, Direct, TCPCopy} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestMissing(t *testing.T) {
	if got := (Peer{Needs: []string{"sh", "no-such-program"}}).Missing(); got != "no-such-program" {
		t.Errorf("missing is %q", got)
	}
	if got := (Peer{Needs: []string{"sh"}}).Missing(); got != "" {
		t.Errorf("missing is %q, want nothing", got)
	}
}

func TestSSH(t *testing.T) {
	lab := &Lab{Dir: "/a b's"}
	line := &Line{lab: lab, user: "abc"}
	args := line.SSH("ssh", "127.0.0.1:22022", "Ciphers=x")
	for _, want := range []string{"-oPort=22022", "-oCiphers=x"} {
		if !slices.Contains(args, want) {
			t.Errorf("%q lacks %s", args, want)
		}
	}
	if args[0] != "ssh" || args[len(args)-1] != "abc@127.0.0.1" {
		t.Errorf("%q does not begin with the program and end with the destination", args)
	}
	line.speaksWebsocket(carrier.Converge)
	const want = `-oProxyCommand='/a b'\''s/wsproxy' ws://127.0.0.1:22022/client/bench-0`
	if args := line.SSH("sftp", "127.0.0.1:22022"); !slices.Contains(args, want) {
		t.Errorf("%q lacks %s", args, want)
	}
}
