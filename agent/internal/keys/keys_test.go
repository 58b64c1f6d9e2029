package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// newKey makes an Ed25519 key pair.
func newKey(t testing.TB) (ed25519.PrivateKey, ssh.PublicKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

// line is the key as a line of authorized_keys, without the newline.
func line(key ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
}

// write puts text in a file of a fresh folder and returns its name.
func write(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func privatePEM(t testing.TB, key crypto.PrivateKey, passphrase string) string {
	t.Helper()
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestHostKeyFresh(t *testing.T) {
	one, err := HostKey("")
	if err != nil {
		t.Fatal(err)
	}
	two, err := HostKey("")
	if err != nil {
		t.Fatal(err)
	}
	if one.PublicKey().Type() != ssh.KeyAlgoED25519 {
		t.Errorf("type %s", one.PublicKey().Type())
	}
	if bytes.Equal(one.PublicKey().Marshal(), two.PublicKey().Marshal()) {
		t.Error("two runs have the same host key")
	}
}

func TestHostKeyFile(t *testing.T) {
	private, public := newKey(t)
	file := write(t, privatePEM(t, private, ""))
	signer, err := HostKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(signer.PublicKey().Marshal(), public.Marshal()) {
		t.Error("another key than the file's")
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.PrivateKey{ec, rsaKey(t, 2048)} {
		if _, err := HostKey(write(t, privatePEM(t, key, ""))); err != nil {
			t.Errorf("%T: %v", key, err)
		}
	}
}

func TestHostKeyRefused(t *testing.T) {
	private, public := newKey(t)
	t.Setenv("GODEBUG", "rsa1024min=0")
	for name, test := range map[string]struct{ file, want string }{
		"missing":    {filepath.Join(t.TempDir(), "nowhere"), "does not exist: make it with ssh-keygen"},
		"folder":     {t.TempDir(), "cannot read the host key file"},
		"passphrase": {write(t, privatePEM(t, private, "secret")), "ssh-keygen -p"},
		"public":     {write(t, line(public)), "without .pub"},
		"empty":      {write(t, ""), "no private key"},
		"huge":       {write(t, strings.Repeat("x", maxHostKey+1)), "64 KiB"},
		"weak":       {write(t, privatePEM(t, rsaKey(t, 1024), "")), "less than 2048 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := HostKey(test.file)
			if err == nil {
				t.Fatal("accepted")
			}
			text := err.Error()
			if !strings.Contains(text, test.want) || !strings.Contains(text, test.file) || strings.Contains(text, "\n") {
				t.Errorf("%q does not name %s and say %q on one line", text, test.file, test.want)
			}
		})
	}
}

func TestExposed(t *testing.T) {
	private, _ := newKey(t)
	file := write(t, privatePEM(t, private, ""))
	if text := Exposed(file); text != "" {
		t.Errorf("0600: %s", text)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if text := Exposed(file); runtime.GOOS != "windows" && !strings.Contains(text, "chmod 600 "+file) {
		t.Errorf("0644: %q", text)
	}
	if text := Exposed(""); text != "" {
		t.Errorf("no file: %s", text)
	}
}

func TestPin(t *testing.T) {
	private, public := newKey(t)
	pin := Pin(public)
	raw, err := base64.RawURLEncoding.DecodeString(pin)
	if err != nil || len(pin) != 43 || !bytes.Equal(raw, private.Public().(ed25519.PublicKey)) {
		t.Errorf("pin %q is not the key", pin)
	}
	other, err := ssh.NewPublicKey(&rsaKey(t, 2048).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	standard := strings.TrimPrefix(ssh.FingerprintSHA256(other), "SHA256:")
	want := "sha256:" + strings.NewReplacer("+", "-", "/", "_").Replace(standard)
	if got := Pin(other); got != want {
		t.Errorf("pin %q, want %q", got, want)
	}
}

func TestSetSources(t *testing.T) {
	_, a := newKey(t)
	_, b := newKey(t)
	_, c := newKey(t)
	_, stranger := newKey(t)
	file := write(t, "# a comment\r\n\n"+line(a)+" a@somewhere\r\n  "+line(b))
	s, err := NewSet([]string{file}, []string{line(c)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range []ssh.PublicKey{a, b, c} {
		if !s.Allows(key) {
			t.Errorf("key %d is refused", i)
		}
	}
	if s.Allows(stranger) || s.Allows(nil) {
		t.Error("a stranger is let in")
	}
	if s.Empty() {
		t.Error("empty")
	}
}

func TestSetEmpty(t *testing.T) {
	var none *Set
	if !none.Empty() || none.Allows(nil) {
		t.Error("a nil set is not empty")
	}
	s, err := NewSet(nil, nil, nil)
	if err != nil || !s.Empty() {
		t.Errorf("a set of nothing is not empty: %v", err)
	}
	s, err = NewSet([]string{write(t, "")}, nil, nil)
	if err != nil || s.Empty() {
		t.Errorf("a file without keys yet counts as nothing: %v", err)
	}
}

func TestSetRefused(t *testing.T) {
	_, key := newKey(t)
	missing := filepath.Join(t.TempDir(), "nowhere")
	broken := write(t, line(key)+"\nssh-ed25519 AAAAnonsense\n")
	large := write(t, "#"+strings.Repeat("x", maxFile))
	for name, test := range map[string]struct {
		files, literals []string
		want            string
	}{
		"missing":  {[]string{missing}, nil, missing + " cannot be read"},
		"folder":   {[]string{filepath.Dir(missing)}, nil, "is not a file"},
		"bad line": {[]string{broken}, nil, broken + ":2: no public key"},
		"large":    {[]string{large}, nil, "1024 KiB"},
		"literal":  {nil, []string{line(key), "nonsense"}, "authorized key 2:1: no public key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewSet(test.files, test.literals, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v does not say %q", err, test.want)
			}
		})
	}
}

func TestSetOptions(t *testing.T) {
	for option, want := range map[string]bool{
		"":                             true,
		"pty":                          true,
		"no-X11-forwarding,no-user-rc": true,
		`environment="A=b c",pty`:      true,
		"restrict":                     false,
		"restrict,pty":                 false,
		`from="10.0.0.0/8"`:            false,
		`command="/bin/true"`:          false,
		`pty,command="a, b"`:           false,
		"no-pty":                       false,
		`expiry-time="20300101"`:       false,
		"cert-authority":               false,
		"what-is-this":                 false,
	} {
		t.Run(option, func(t *testing.T) {
			_, key := newKey(t)
			var log bytes.Buffer
			file := write(t, "\n"+strings.TrimSpace(option+" "+line(key))+"\n")
			s, err := NewSet([]string{file}, nil, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Allows(key); got != want {
				t.Errorf("allowed %v, want %v", got, want)
			}
			if said := strings.Contains(log.String(), file+":2"); said == want {
				t.Errorf("log: %q", log.String())
			}
		})
	}
}

func TestSetKinds(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	for bits, want := range map[int]bool{1024: false, 2048: true} {
		key, err := ssh.NewPublicKey(&rsaKey(t, bits).PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSet(nil, []string{line(key)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Allows(key); got != want {
			t.Errorf("RSA %d: %v", bits, got)
		}
	}
}

// rewrite changes the file and gives it a time of its own, old enough to count
// as settled, so that only the comparison of stamps can notice the change.
func rewrite(t *testing.T, file, text string, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-age)
	if err := os.Chtimes(file, then, then); err != nil {
		t.Fatal(err)
	}
}

func TestSetRereads(t *testing.T) {
	_, a := newKey(t)
	_, b := newKey(t)
	file := write(t, "")
	rewrite(t, file, line(a)+"\n", 3*time.Hour)
	s, err := NewSet([]string{file}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(step string, wantA, wantB bool) {
		t.Helper()
		if gotA, gotB := s.Allows(a), s.Allows(b); gotA != wantA || gotB != wantB {
			t.Errorf("%s: a %v, b %v", step, gotA, gotB)
		}
	}
	check("at first", true, false)
	rewrite(t, file, line(a)+"\n"+line(b)+"\n", 3*time.Hour) // another size
	check("appended", true, true)
	rewrite(t, file, line(b)+"\n"+line(b)+"\n", 2*time.Hour) // the same size
	check("removed", false, true)
	other := file + ".new"
	rewrite(t, other, line(a)+"\n"+line(a)+"\n", time.Hour)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(other, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, file); err != nil { // the same size and time
		t.Fatal(err)
	}
	check("replaced", true, false)
}

// A change that leaves size, time and identity alone is still seen when the
// file was young at the time of reading.
func TestSetRereadsYoung(t *testing.T) {
	_, a := newKey(t)
	_, b := newKey(t)
	file := write(t, line(a)+"\n")
	s, err := NewSet([]string{file}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	// Written before the reading, as far as the file system can tell.
	s.files[0].read = info.ModTime().Add(settled / 2)
	if err := os.WriteFile(file, []byte(line(b)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if s.Allows(a) || !s.Allows(b) {
		t.Error("the change was missed")
	}
}

func TestSetKeepsLastGood(t *testing.T) {
	_, a := newKey(t)
	_, b := newKey(t)
	var log bytes.Buffer
	file := write(t, line(a)+"\n")
	s, err := NewSet([]string{file}, nil, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	trouble := func() int { return strings.Count(log.String(), "cannot be used") }

	rewrite(t, file, line(b)+"\nnonsense\n", time.Hour)
	for range 3 {
		if !s.Allows(a) || s.Allows(b) {
			t.Error("a broken file changed the keys")
		}
	}
	if trouble() != 1 || !strings.Contains(log.String(), file+":2") {
		t.Errorf("not logged once, with the line: %s", log.String())
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if !s.Allows(a) {
			t.Error("a missing file took the keys away")
		}
	}
	if trouble() != 2 {
		t.Errorf("the second trouble is not logged once: %s", log.String())
	}
	rewrite(t, file, line(b)+"\n", time.Hour)
	if s.Allows(a) || !s.Allows(b) {
		t.Error("the mended file is not used")
	}
	if !strings.Contains(log.String(), "can be read again") {
		t.Error("the recovery is not logged")
	}
}

// What is read through a pipe is read once.
func TestSetPipe(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // there is no name for an open pipe
	}
	_, key := newKey(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fmt.Fprintln(w, line(key))
	w.Close()
	s, err := NewSet([]string{fmt.Sprintf("/dev/fd/%d", r.Fd())}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !s.Allows(key) {
			t.Error("refused")
		}
	}
}

func TestReadErrorWraps(t *testing.T) {
	_, err := NewSet([]string{filepath.Join(t.TempDir(), "nowhere")}, nil, nil)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	_, key := newKey(f)
	f.Add([]byte(line(key) + " someone\n"))
	f.Add([]byte("pty,command=\"a b\\\" c\" " + line(key) + "\n# comment\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		accepted, refused, err := parse(text)
		if err != nil && (accepted != nil || refused != nil) {
			t.Error("keys beside an error")
		}
		lines := bytes.Count(text, []byte("\n")) + 1
		if len(accepted)+len(refused) > lines {
			t.Errorf("%d keys on %d lines", len(accepted)+len(refused), lines)
		}
		for _, r := range refused {
			if r.line < 1 || r.line > lines || r.why == "" {
				t.Errorf("refusal %+v", r)
			}
		}
	})
}
