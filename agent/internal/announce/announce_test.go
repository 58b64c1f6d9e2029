package announce

import (
	"strings"
	"testing"

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

const (
	beforeProxy = ` -oServerAliveInterval=10 -oProxyCommand=`
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
		{"plain", func(*Access) {}, "", `"wsproxy ws://relay.example:8080/client/team/job-1"`},
		{"secure, below a path", func(a *Access) {
			a.Server = rendezvous.Server{Secure: true, Host: "relay.example", Prefix: "/converge"}
		}, "", `"wsproxy wss://relay.example/converge/client/team/job-1"`},
		{"tilde in the id", func(a *Access) { a.ID = "a~b" }, "", `"wsproxy 'ws://relay.example:8080/client/a~b'"`},
		{"IPv6", func(a *Access) { a.Server.Host = "[::1]:80" }, "", `"wsproxy 'ws://[::1]:80/client/team/job-1'"`},
		{"path", func(a *Access) { a.Wsproxy = "./bin/wsproxy-1.2_x86" }, "", `"./bin/wsproxy-1.2_x86 ws://relay.example:8080/client/team/job-1"`},
		{"home", func(a *Access) { a.Wsproxy = "~/my bin/wsproxy" }, "", `"~/'my bin/wsproxy' ws://relay.example:8080/client/team/job-1"`},
		{"only a tilde", func(a *Access) { a.Wsproxy = "~/" }, "", `"'~/' ws://relay.example:8080/client/team/job-1"`},
		{"dollar", func(a *Access) { a.Wsproxy = "$x/wsproxy" }, "", `"'\$x/wsproxy' ws://relay.example:8080/client/team/job-1"`},
		{"percent", func(a *Access) { a.Wsproxy = "50%h/wsproxy" }, "", `"50%%h/wsproxy ws://relay.example:8080/client/team/job-1"`},
		{"backslash", func(a *Access) { a.Wsproxy = `b\$` }, "", `"\"b\\\\\\\$\" ws://relay.example:8080/client/team/job-1"`},
		{"exclamation mark", func(a *Access) { a.Wsproxy = "wow!/wsproxy" }, "", `''\''wow!/wsproxy'\'' ws://relay.example:8080/client/team/job-1'`},
		{"options", func(a *Access) { a.Options = []string{"-oIdentitiesOnly=yes", "-i~/my key", "-v"} },
			` -oIdentitiesOnly=yes "-i~/my key" -v`, `"wsproxy ws://relay.example:8080/client/team/job-1"`},
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

func TestText(t *testing.T) {
	a := fixed(t)
	line := beforeProxy + `"wsproxy ws://relay.example:8080/client/team/job-1"` + afterProxy
	const fingerprint = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ (ed25519)"
	head := "\nThis job can be entered. Its id is team/job-1\n\n  ssh" + line + "\n\n  sftp" + line + "\n\n"
	if got, want := a.Text(), head+"  host key: "+a.Fingerprint()+"\n\n"; got != want {
		t.Errorf("with keys:\n got %s\nwant %s", got, want)
	}
	a.Password = "abcde-fghij"
	if got, want := a.Text(), head+"  password: abcde-fghij\n  host key: "+a.Fingerprint()+"\n\n"; got != want {
		t.Errorf("with a password:\n got %s\nwant %s", got, want)
	}
	if got := a.Fingerprint(); got != fingerprint {
		t.Errorf("the fingerprint is %s, want %s", got, fingerprint)
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
