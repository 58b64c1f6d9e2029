package announce

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/pin"
	"example.com/converge/pkg/rendezvous"
)

func TestShort(t *testing.T) {
	for _, test := range []struct {
		change func(*Access)
		want   string
	}{
		{func(*Access) {}, `wsproxy ssh "ws://relay.example:8080/client/team/job-1#` + hostPin + `"`},
		{func(a *Access) { a.User = "bob" }, `wsproxy ssh -oUser=bob "ws://relay.example:8080/client/team/job-1#` + hostPin + `"`},
		{func(a *Access) { a.Wsproxy, a.Options = "~/my bin/wsproxy", []string{"-i~/my key", "-v"} },
			`~/"my bin/wsproxy" ssh "-i~/my key" -v "ws://relay.example:8080/client/team/job-1#` + hostPin + `"`},
	} {
		a := fixed(t)
		test.change(&a)
		if got := a.Short(); got != test.want {
			t.Errorf("got %s\nwant %s", got, test.want)
		}
		if got, want := a.ShortSFTP(), strings.Replace(test.want, " ssh ", " sftp ", 1); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

// TestShortIsShort: 140 characters at most for a host and an id of 30 each,
// whatever kind of key the agent has.
func TestShortIsShort(t *testing.T) {
	for _, kind := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSA} {
		a := example(t)
		a.Server = rendezvous.Server{Secure: true, Host: strings.Repeat("h", 26) + ".org"}
		a.ID, a.HostKey = strings.Repeat("i", 30), newSigner(t, kind).PublicKey()
		if line := a.Short(); len(line) > 140 || !strings.Contains(line, "#"+pin.Of(a.HostKey).String()+`"`) {
			t.Errorf("%d characters: %s", len(line), line)
		}
	}
}

func TestHeadAndDetails(t *testing.T) {
	a := fixed(t)
	const fingerprint = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ (ed25519)"
	head := "\nThis job can be entered. Its id is team/job-1\n\n  " + a.Short() + "\n\n"
	if got := a.Head(); got != head {
		t.Errorf("with keys:\n%s", got)
	}
	details := "With stock ssh (OpenSSH 8.5 or newer, not on Windows):\n\n  " + a.SSH() +
		"\n\nFor files write sftp in place of ssh, in either line. agent --print all shows other ways.\n\n  host key: " + fingerprint + "\n\n"
	if got := a.Details(false); got != details {
		t.Errorf("got:\n%s", got)
	}
	a.Password = "abcde-fghij"
	if got := a.Head(); got != head+"  password: abcde-fghij\n\n" {
		t.Errorf("with a password:\n%s", got)
	}
	all := a.Details(true)
	open, enter := a.TCP()
	for _, line := range []string{a.SSH(), a.ShortSFTP(), a.SFTP(), a.Fetch(), open, enter} {
		if !strings.Contains(all, "\n\n  "+line+"\n\n") {
			t.Errorf("there is no line %s in\n%s", line, all)
		}
	}
	if !strings.HasSuffix(all, "  host key: "+fingerprint+"\n\n") || strings.Contains(all, a.Password) {
		t.Errorf("got:\n%s", all)
	}
}

func TestTCP(t *testing.T) {
	a := fixed(t)
	a.Wsproxy = "/opt/bin/wsproxy"
	open, enter := a.TCP()
	if want := `/opt/bin/tcptows 10000 "` + a.URL() + `"`; open != want {
		t.Errorf("got %s\nwant %s", open, want)
	}
	want := `ssh -oServerAliveInterval=10 -oServerAliveCountMax=36 -p 10000 -oNoHostAuthenticationForLocalhost=no` + afterProxy
	if enter != want {
		t.Errorf("got %s\nwant %s", enter, want)
	}
	a.Wsproxy = "my-proxy"
	if open, _ := a.TCP(); !strings.HasPrefix(open, "tcptows 10000 ") {
		t.Errorf("got %s", open)
	}
}

func TestFetch(t *testing.T) {
	a := fixed(t)
	a.Server = rendezvous.Server{Secure: true, Host: "relay.example", Prefix: "/converge"}
	line := a.Fetch()
	for _, want := range []string{
		`curl -fsSo "$f" "https://relay.example/converge/docs/$f" && curl -fsS "https://relay.example/converge/docs/SHA256SUMS"`,
		`-c && chmod 755 "$f" && "./$f" ssh "wss://relay.example/converge/client/team/job-1#` + hostPin + `"`,
	} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
	if a.Server.Secure = false; !strings.Contains(a.Fetch(), `"http://relay.example/`) {
		t.Errorf("%s", a.Fetch())
	}
}

func TestObject(t *testing.T) {
	a := fixed(t)
	a.Server.Secure = true
	text := a.Object(noon)
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "}\n") || strings.Contains(text, `\u00`) {
		t.Errorf("%q", text)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"id": "team/job-1", "client_url": a.URL(), "ssh": a.Short(), "ssh_stock": a.SSH(), "sftp": a.ShortSFTP(),
		"host_key": hostKey, "user": "abc", "expires": "2026-03-01T11:00:00Z",
	}
	if len(got) != len(want) {
		t.Errorf("%s", text)
	}
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s is %v, want %v", key, got[key], value)
		}
	}
	order := regexp.MustCompile(`"([a-z_]+)":`).FindAllStringSubmatch(text, -1)
	var keys []string
	for _, m := range order {
		keys = append(keys, m[1])
	}
	if !slices.Equal(keys, []string{"id", "client_url", "ssh", "ssh_stock", "sftp", "host_key", "user", "expires"}) {
		t.Errorf("the keys come as %q", keys)
	}
	a.Password = "abcde-fghij"
	if text := a.Object(time.Time{}); !strings.Contains(text, `"password":"abcde-fghij"`) || !strings.Contains(text, `"expires":null`) {
		t.Errorf("%s", text)
	}
}

func TestWaiting(t *testing.T) {
	if got, want := Waiting(7*time.Minute, noon), "waiting for somebody to log in, for 7 min more (until 12:00:00 XYZ)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := Waiting(0, time.Time{}), "waiting for somebody to log in"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
