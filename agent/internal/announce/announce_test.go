package announce

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/rendezvous"
)

// hostKey is fixed, for texts that are compared as a whole.
const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti"

func fixed(t *testing.T) Access {
	t.Helper()
	a := example(t)
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(hostKey))
	if err != nil {
		t.Fatal(err)
	}
	a.HostKey = key
	return a
}

// hostPin is the same key in a URL.
const hostPin = "sz6u836i33yqAQ3v3qNOJB9l8bUppPQ-0UMn9cVKq2I"

const (
	beforeProxy = ` -oServerAliveInterval=10 -oServerAliveCountMax=36 -oProxyCommand=`
	afterProxy  = ` -oKnownHostsCommand="/bin/echo %H ` + hostKey + `" -oStrictHostKeyChecking=yes` +
		` -oUserKnownHostsFile=none -oGlobalKnownHostsFile=none -oControlPath=none abc@localhost`
)

// TestLines compares lines as people see them: no quotes but where needed.
func TestLines(t *testing.T) {
	tests := []struct {
		name    string
		change  func(*Access)
		options string
		proxy   string
	}{
		{"plain", func(*Access) {}, "", `"wsproxy 'ws://relay.example:8080/client/team/job-1#` + hostPin + `'"`},
		{"secure, below a path", func(a *Access) {
			a.Server = rendezvous.Server{Secure: true, Host: "relay.example", Prefix: "/converge"}
		}, "", `"wsproxy 'wss://relay.example/converge/client/team/job-1#` + hostPin + `'"`},
		{"tilde in the id", func(a *Access) { a.ID = "a~b" }, "", `"wsproxy 'ws://relay.example:8080/client/a~b#` + hostPin + `'"`},
		{"IPv6", func(a *Access) { a.Server.Host = "[::1]:80" }, "", `"wsproxy 'ws://[::1]:80/client/team/job-1#` + hostPin + `'"`},
		{"path", func(a *Access) { a.Wsproxy = "./bin/wsproxy-1.2_x86" }, "", `"./bin/wsproxy-1.2_x86 'ws://relay.example:8080/client/team/job-1#` + hostPin + `'"`},
		{"home", func(a *Access) { a.Wsproxy = "~/my bin/wsproxy" }, "", `"~/'my bin/wsproxy' 'ws://relay.example:8080/client/team/job-1#` + hostPin + `'"`},
		{"only a tilde", func(a *Access) { a.Wsproxy = "~/" }, "", `"'~/' 'ws://relay.example:8080/client/team/job-1#` + hostPin + `'"`},
		{"dollar", func(a *Access) { a.Wsproxy = "$x/wsproxy" }, "", `"'\$x/wsproxy' 'ws://relay.example:8080/client/team/job-1#` + hostPin + `'"`},
		{"percent", func(a *Access) { a.Wsproxy = "50%h/wsproxy" }, "", `"50%%h/wsproxy 'ws://relay.example:8080/client/team/job-1#` + hostPin + `'"`},
		{"backslash", func(a *Access) { a.Wsproxy = `b\$` }, "", `"\"b\\\\\\\$\" 'ws://relay.example:8080/client/team/job-1#` + hostPin + `'"`},
		{"exclamation mark", func(a *Access) { a.Wsproxy = "wow!/wsproxy" }, "", `''\''wow!/wsproxy'\'' '\''ws://relay.example:8080/client/team/job-1#` + hostPin + `'\'''`},
		{"options", func(a *Access) { a.Options = []string{"-oIdentitiesOnly=yes", "-i~/my key", "-v"} },
			` -oIdentitiesOnly=yes "-i~/my key" -v`, `"wsproxy 'ws://relay.example:8080/client/team/job-1#` + hostPin + `'"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := fixed(t)
			test.change(&a)
			rest := test.options + beforeProxy + test.proxy + afterProxy
			if got, want := a.SSH(), "ssh"+rest; got != want {
				t.Errorf("SSH:\n got %s\nwant %s", got, want)
			}
			if got, want := a.SFTP(), "sftp"+rest; got != want {
				t.Errorf("SFTP:\n got %s\nwant %s", got, want)
			}
		})
	}
}

// TestPatience has ssh outlast the window, and be as it is by itself where
// there is none.
func TestPatience(t *testing.T) {
	for window, want := range map[time.Duration]string{
		0:                 "-oServerAliveInterval=10 -oProxyCommand=",
		time.Second:       "-oServerAliveCountMax=7 ",
		10 * time.Second:  "-oServerAliveCountMax=7 ",
		5*time.Minute + 1: "-oServerAliveCountMax=37 ",
		24 * time.Hour:    "-oServerAliveCountMax=8646 ",
	} {
		a := fixed(t)
		a.Window = window
		if line := a.SSH(); !strings.Contains(line, want) {
			t.Errorf("%v: no %q in %s", window, want, line)
		}
	}
}

// TestURLOfOtherKeys: keys of other types are pinned by their fingerprint.
func TestURLOfOtherKeys(t *testing.T) {
	a := example(t)
	a.HostKey = newSigner(t, ssh.KeyAlgoECDSA256).PublicKey()
	if got, want := a.URL(), "ws://relay.example:8080/client/team/job-1#sha256:"+strings.TrimPrefix(ssh.FingerprintSHA256(a.HostKey), "SHA256:"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFingerprintNamesTheKind(t *testing.T) {
	for kind, want := range map[string]string{
		ssh.KeyAlgoED25519:  " (ed25519)",
		ssh.KeyAlgoECDSA256: " (ecdsa-sha2-nistp256)",
		ssh.KeyAlgoRSA:      " (rsa)",
	} {
		a := Access{HostKey: newSigner(t, kind).PublicKey()}
		if got := a.Fingerprint(); !strings.HasPrefix(got, "SHA256:") || !strings.HasSuffix(got, want) {
			t.Errorf("the fingerprint of a %s key is %s", kind, got)
		}
	}
}
