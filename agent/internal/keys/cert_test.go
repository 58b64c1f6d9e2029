package keys

import (
	"bytes"
	"crypto/rand"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// now is when the certificates of these tests are looked at.
var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// good is a certificate for abc that is signed with ssh-keygen's defaults.
func good(key ssh.PublicKey) *ssh.Certificate {
	return &ssh.Certificate{
		Key: key, Serial: 7, CertType: ssh.UserCert, KeyId: "alice@example",
		ValidPrincipals: []string{"someone", "abc"},
		ValidAfter:      uint64(now.Add(-time.Hour).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{
			"permit-X11-forwarding": "", permitAgentForwarding: "", permitPortForwarding: "", permitPTY: "", "permit-user-rc": "",
		}},
	}
}

func sign(t *testing.T, cert *ssh.Certificate, authority ssh.Signer) *ssh.Certificate {
	t.Helper()
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	return cert
}

// certSet trusts an authority at the time now.
func certSet(t *testing.T, authority ssh.PublicKey, log *bytes.Buffer, change func(*Config)) *Set {
	t.Helper()
	cfg := Config{Authorities: []string{line(authority)}}
	if log != nil {
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.authorities.now = func() time.Time { return now }
	return s
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	private, _ := newKey(t)
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestCertificates(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	authority, other := newSigner(t), newSigner(t)
	_, key := newKey(t)
	small, err := ssh.NewPublicKey(&rsaKey(t, 1024).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*ssh.Certificate)
		by     ssh.Signer
		user   string
		log    string // "" if it is accepted
	}{
		"good":             {},
		"only this":        {change: func(c *ssh.Certificate) { c.ValidPrincipals = []string{"abc"} }},
		"without end":      {change: func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }},
		"other authority":  {by: other, log: "-"},
		"other user":       {user: "abcd", log: "none of its principals is abcd"},
		"empty user":       {user: "-", change: func(c *ssh.Certificate) { c.ValidPrincipals = []string{""} }, log: "none of its principals"},
		"other principals": {change: func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ab", "ABC"} }, log: "none of its principals is abc"},
		"no principals":    {change: func(c *ssh.Certificate) { c.ValidPrincipals = nil }, log: "none of its principals is abc"},
		"for a host":       {change: func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, log: "it is none for users"},
		"of no kind":       {change: func(c *ssh.Certificate) { c.CertType = 3 }, log: "it is none for users"},
		"expired":          {change: func(c *ssh.Certificate) { c.ValidBefore = uint64(now.Unix()) }, log: "has expired"},
		"not yet":          {change: func(c *ssh.Certificate) { c.ValidAfter = uint64(now.Unix() + 1) }, log: "not yet valid"},
		"small key":        {change: func(c *ssh.Certificate) { c.Key = small }, log: "RSA key of less than 2048 bits"},
		"source-address": {change: func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"source-address": "0.0.0.0/0"}
		}, log: "source-address"},
		"verify-required": {change: func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"verify-required": ""}
		}, log: "verify-required"},
		"unknown option": {change: func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"what-is-this": "x", forceCommand: "id"}
		}, log: "what-is-this"},
		"empty command": {change: func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{forceCommand: " "}
		}, log: "force-command"},
		"NUL in command": {change: func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{forceCommand: "id\x00"}
		}, log: "force-command"},
		"unknown extension": {change: func(c *ssh.Certificate) { c.Extensions["login@forge.example"] = "alice" }},
		"odd key id":        {change: func(c *ssh.Certificate) { c.KeyId = "\x1b[31m\n" + strings.Repeat("x", 1000) }},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			s := certSet(t, authority.PublicKey(), &log, nil)
			cert := good(key)
			if test.change != nil {
				test.change(cert)
			}
			by, user := authority, "abc"
			if test.by != nil {
				by = test.by
			}
			if test.user != "" {
				user = strings.TrimPrefix(test.user, "-")
			}
			grant, ok := s.Grant(user, sign(t, cert, by))
			if ok != (test.log == "") {
				t.Errorf("accepted %v; log %s", ok, &log)
			}
			if test.log != "" && test.log != "-" && !strings.Contains(log.String(), test.log) {
				t.Errorf("the log does not say %q: %s", test.log, &log)
			}
			if ok && (!strings.HasPrefix(grant.Owner, "certificate ") || strings.ContainsAny(grant.Owner, "\x1b\n") || len(grant.Owner) > 400) {
				t.Errorf("owner %q", grant.Owner)
			}
			if _, ok := s.Grant(user, key); ok {
				t.Error("the bare key of a certificate lets in")
			}
			if _, ok := s.Grant(user, authority.PublicKey()); ok {
				t.Error("the authority's own key lets in")
			}
		})
	}
}

// What was changed after the signature, or signed with SHA-1, is worth nothing.
func TestCertificateSignature(t *testing.T) {
	authority := newSigner(t)
	_, key := newKey(t)
	s := certSet(t, authority.PublicKey(), nil, nil)
	cert := sign(t, good(key), authority)
	cert.ValidPrincipals = append(cert.ValidPrincipals, "more")
	if _, ok := s.Grant("abc", cert); ok {
		t.Error("a changed certificate is accepted")
	}
	if _, ok := s.Grant("abc", &ssh.Certificate{Key: key}); ok {
		t.Error("a certificate without signature is accepted")
	}
	old, err := ssh.NewSignerFromKey(rsaKey(t, 2048))
	if err != nil {
		t.Fatal(err)
	}
	for algorithm, want := range map[string]bool{ssh.KeyAlgoRSA: false, ssh.KeyAlgoRSASHA256: true, ssh.KeyAlgoRSASHA512: true} {
		signer, err := ssh.NewSignerWithAlgorithms(old.(ssh.AlgorithmSigner), []string{algorithm})
		if err != nil {
			t.Fatal(err)
		}
		s := certSet(t, old.PublicKey(), nil, nil)
		if _, ok := s.Grant("abc", sign(t, good(key), signer)); ok != want {
			t.Errorf("signed with %s: %v", algorithm, ok)
		}
	}
}

func TestCertificateGrants(t *testing.T) {
	authority := newSigner(t)
	_, key := newKey(t)
	s := certSet(t, authority.PublicKey(), nil, nil)
	cert := good(key)
	cert.Extensions = map[string]string{permitPTY: ""}
	cert.CriticalOptions = map[string]string{forceCommand: "make test"}
	got, ok := s.Grant("abc", sign(t, cert, authority))
	if !ok || got.NoPTY || !got.NoPortForwarding || !got.NoAgentForwarding || got.ForceCommand != "make test" {
		t.Errorf("%v %+v", ok, got)
	}
	got, ok = s.Grant("abc", sign(t, good(key), authority))
	if !ok || got.NoPTY || got.NoPortForwarding || got.NoAgentForwarding || got.ForceCommand != "" {
		t.Errorf("%v %+v", ok, got)
	}
	cert.Extensions = nil
	if got, ok = s.Grant("abc", sign(t, cert, authority)); !ok || !got.NoPTY {
		t.Errorf("%v %+v", ok, got)
	}
}

func TestPrincipals(t *testing.T) {
	authority := newSigner(t)
	_, key := newKey(t)
	s := certSet(t, authority.PublicKey(), nil, func(c *Config) { c.Principals = []string{"ops", "someone"} })
	if _, ok := s.Grant("abc", sign(t, good(key), authority)); !ok {
		t.Error("one of several principals is refused")
	}
	cert := good(key)
	cert.ValidPrincipals = []string{"abc"}
	if _, ok := s.Grant("abc", sign(t, cert, authority)); ok {
		t.Error("the login name still counts")
	}
}

func TestAuthorities(t *testing.T) {
	authority, other := newSigner(t), newSigner(t)
	_, key := newKey(t)
	file := write(t, "# ours\n"+line(authority.PublicKey())+" the CA\n")
	s := certSet(t, other.PublicKey(), nil, func(c *Config) { c.Authorities = append(c.Authorities, file) })
	for i, signer := range []ssh.Signer{authority, other} {
		if _, ok := s.Grant("abc", sign(t, good(key), signer)); !ok {
			t.Errorf("authority %d is not trusted", i)
		}
	}
	rewrite(t, file, "# none any more\n", time.Hour)
	if _, ok := s.Grant("abc", sign(t, good(key), authority)); ok {
		t.Error("an authority that was removed is still trusted")
	}
	if s.Empty() {
		t.Error("a set of authorities counts as empty")
	}
	for value, want := range map[string]string{
		"nowhere.pub":          "cannot use the certificate authorities: nowhere.pub cannot be read",
		"ssh-ed25519 nonsense": "certificate authority 1:1: no public key",
		`pty ` + line(key):     "cannot use the certificate authorities",
		write(t, "nonsense\n"): ":1: no public key",
		line(mustRSA(t, 1024)): "no key of --trusted-user-ca is accepted",
	} {
		if _, err := New(Config{Authorities: []string{value}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func mustRSA(t *testing.T, bits int) ssh.PublicKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := ssh.NewPublicKey(&rsaKey(t, bits).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Without authorities certificates are nothing, even of an authorized key.
func TestCertificateOfAuthorizedKey(t *testing.T) {
	authority := newSigner(t)
	s, err := NewSet(nil, []string{line(authority.PublicKey())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Allows(sign(t, good(authority.PublicKey()), authority)) {
		t.Error("a certificate is accepted where no authority is trusted")
	}
	var log bytes.Buffer
	file := write(t, "cert-authority "+line(authority.PublicKey())+"\n")
	if _, err := NewSet([]string{file}, nil, slog.New(slog.NewTextHandler(&log, nil))); err != nil || !strings.Contains(log.String(), "--trusted-user-ca") {
		t.Errorf("%v %s", err, &log)
	}
}

func TestNoTouch(t *testing.T) {
	_, a := newKey(t)
	_, b := newKey(t)
	_, c := newKey(t)
	s, err := NewSet([]string{write(t, "no-touch-required,pty "+line(a)+"\nNo-Touch-Required "+line(b)+"\n")}, []string{line(b), line(c)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		key  ssh.PublicKey
		want bool
	}{{a, true}, {b, false}, {c, false}} { // of two lines the one that wants more counts
		if grant, ok := s.Grant("abc", test.key); !ok || grant.NoTouch != test.want {
			t.Errorf("key %d: %v %+v", i, ok, grant)
		}
	}
	refused, err := NewSet(nil, []string{"verify-required,no-touch-required " + line(a)}, nil)
	if err != nil || refused.Allows(a) {
		t.Errorf("verify-required is not refused: %v", err)
	}
}

func TestRevoked(t *testing.T) {
	authority := newSigner(t)
	_, key := newKey(t)
	_, other := newKey(t)
	cert := sign(t, good(key), authority)
	whole := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert)))
	for text, want := range map[string][2]bool{ // of the key, of the certificate
		"":                                       {true, true},
		"# nothing\n\n" + line(other):            {true, true},
		line(key):                                {false, false},
		"key: " + line(key) + " alice":           {false, false},
		line(authority.PublicKey()):              {true, false},
		whole:                                    {true, false},
		"sha256: " + ssh.FingerprintSHA256(key):  {false, false},
		ssh.FingerprintSHA256(key):               {false, false},
		"hash:" + ssh.FingerprintSHA256(key)[7:]: {false, false},
		"id: alice@example":                      {true, false},
		"id: alice":                              {true, true},
		"serial: 7":                              {true, false},
		"serial:0x7":                             {true, false},
		"serial: 5-9":                            {true, false},
		"serial: 8 - 9\nserial: 1":               {true, true},
	} {
		t.Run(text[:min(len(text), 20)], func(t *testing.T) {
			s := certSet(t, authority.PublicKey(), nil, func(c *Config) {
				c.Literals, c.Revoked = []string{line(key)}, write(t, text+"\n")
			})
			_, plain := s.Grant("abc", key)
			_, certified := s.Grant("abc", cert)
			if got := [2]bool{plain, certified}; got != want {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
	for text, want := range map[string]string{
		"SSHKRL\n\x00\x00":     ":1: this is a compiled revocation list",
		"\nnonsense":           ":2: this line revokes nothing",
		"sha1: 2jmj7l5rSw0yVb": "it starts with none of",
		"serial: x":            "no serial number",
		"serial: 9-5":          "its range is empty",
		"serial:":              "no serial number",
		"id:":                  "no key id",
		"sha256: abc":          "no SHA-256 fingerprint",
		"key: ssh-ed25519":     "no public key",
	} {
		if _, err := New(Config{Revoked: write(t, text+"\n")}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v does not say %q", text, err, want)
		}
	}
	if _, err := New(Config{Revoked: "nowhere"}); err == nil || !strings.Contains(err.Error(), "cannot use the revoked keys: nowhere cannot be read") {
		t.Error(err)
	}
}

// The file is looked at again; one that cannot be read any more lets nobody in.
func TestRevokedChanges(t *testing.T) {
	_, key := newKey(t)
	var log bytes.Buffer
	file := write(t, "")
	s, err := New(Config{Literals: []string{line(key)}, Revoked: file, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	check := func(step string, want bool) {
		t.Helper()
		for range 2 {
			if got := s.Allows(key); got != want {
				t.Errorf("%s: %v", step, got)
			}
		}
	}
	check("at first", true)
	rewrite(t, file, line(key)+"\n", 3*time.Hour)
	check("revoked", false)
	rewrite(t, file, "nonsense\n", 2*time.Hour)
	check("broken", false)
	rewrite(t, file, "# nobody\n", time.Hour)
	check("mended", true)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	check("gone", false)
	if n := strings.Count(log.String(), "nobody can log in by key"); n != 2 {
		t.Errorf("logged %d times: %s", n, &log)
	}
}

// source is one that has a key.
type source struct {
	sum   Digest
	owner string
}

func (s source) Owner(sum Digest) (string, bool) { return s.owner, sum == s.sum }

func TestSources(t *testing.T) {
	_, key := newKey(t)
	_, stranger := newKey(t)
	s, err := New(Config{Sources: []Source{source{Sum(key), "alice at a forge"}}, Literals: []string{"no-touch-required " + line(key)}})
	if err != nil || s.Empty() {
		t.Fatal(err)
	}
	// A source's key never comes without a touch.
	if grant, ok := s.Grant("abc", key); !ok || grant.Owner != "alice at a forge" || grant.NoTouch {
		t.Errorf("%v %+v", ok, grant)
	}
	if s.Allows(stranger) {
		t.Error("a stranger is let in")
	}
}

func TestParseBare(t *testing.T) {
	_, key := newKey(t)
	text := line(key)
	kind, blob, _ := strings.Cut(text, " ")
	cert := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sign(t, good(key), newSigner(t)))))
	for line, want := range map[string]bool{
		text:                             true,
		text + " alice, with a comment":  true,
		"  " + kind + "\t" + blob + "\r": true,
		"":                               false,
		kind:                             false,
		blob:                             false,
		"pty " + text:                    false,
		`command="id" ` + text:           false,
		"no-pty,restrict " + text:        false,
		"cert-authority " + text:         false,
		"ssh-rsa " + blob:                false,
		"ssh-ed25519 AAAA":               false,
		cert:                             false,
		"<html> <body>":                  false,
		line(mustRSA(t, 1024)):           false,
	} {
		got, err := ParseBare([]byte(line))
		if (err == nil) != want || want && Sum(got) != Sum(key) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func FuzzParseBare(f *testing.F) {
	_, key := newKey(f)
	f.Add([]byte(line(key) + " someone"))
	f.Add([]byte(`command="id" ` + line(key)))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ParseBare(text)
		if err != nil {
			return
		}
		if unfit(key) != "" || !bytes.HasPrefix(bytes.TrimSpace(text), []byte(key.Type())) {
			t.Errorf("%q is taken for %s", text, key.Type())
		}
	})
}

func FuzzParseRevoked(f *testing.F) {
	_, key := newKey(f)
	f.Add([]byte(line(key) + "\nserial: 1-5\nid: x\n" + ssh.FingerprintSHA256(key)))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseRevoked(text)
		if n := len(list.sums) + len(list.ids) + len(list.serials); err != nil && n != 0 || n > bytes.Count(text, []byte("\n"))+1 {
			t.Errorf("%d entries beside %v", n, err)
		}
	})
}

// FuzzCertificate shows that no certificate of strangers gets through, or
// panics, whatever is in it.
func FuzzCertificate(f *testing.F) {
	authority := newSigner(f)
	_, key := newKey(f)
	cert := good(key)
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		f.Fatal(err)
	}
	f.Add(cert.Marshal())
	s, err := New(Config{Authorities: []string{line(authority.PublicKey())}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		f.Fatal(err)
	}
	s.authorities.now = func() time.Time { return now }
	f.Fuzz(func(t *testing.T, blob []byte) {
		parsed, err := ssh.ParsePublicKey(blob)
		if err != nil {
			return
		}
		if _, ok := s.Grant("abc", parsed); ok && !bytes.Equal(parsed.Marshal(), cert.Marshal()) {
			t.Errorf("a forged certificate is accepted: %x", blob)
		}
	})
}
