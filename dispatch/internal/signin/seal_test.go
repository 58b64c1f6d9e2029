package signin

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCookies: what a cookie must be, and that nobody reads or makes one.
func TestCookies(t *testing.T) {
	w := open(t, nil)
	s := session{ID: "id", Login: "octo", Token: "T0KEN", Until: time.Now().Add(time.Hour).Unix()}
	value, err := w.door.key.seal("session", s)
	if err != nil {
		t.Fatal(err)
	}
	who := func(d *Door, cookies ...*http.Cookie) string {
		r := httptest.NewRequest("GET", "/", nil)
		for _, c := range cookies {
			r.AddCookie(c)
		}
		if p := d.Who(r); p != nil {
			return p.Login
		}
		return ""
	}
	good := w.door.cookie("session", value, time.Hour)
	if !good.HttpOnly || good.SameSite != http.SameSiteLaxMode || good.Secure || good.Path != "/" || good.MaxAge != 3600 {
		t.Errorf("%+v", good)
	}
	raw, _ := base64.RawURLEncoding.DecodeString(value)
	if strings.Contains(value+string(raw), "octo") || strings.Contains(string(raw), "T0KEN") {
		t.Error("it can be read")
	}
	if got := who(w.door, good); got != "octo" {
		t.Fatalf("%q", got)
	}
	if got := who(w.door, good, good); got != "" {
		t.Error("two are taken")
	}
	for i := range value {
		bent := *good
		bent.Value = value[:i] + string("AB"[map[bool]int{true: 1}[value[i] == 'A']]) + value[i+1:]
		if i < len(value)-1 && who(w.door, &bent) != "" { // the last character has bits that do not count
			t.Fatalf("it is good with another byte at %d", i)
		}
	}
	for _, text := range []string{"", "x", strings.Repeat("A", 5000), "%"} {
		bent := *good
		bent.Value = text
		if who(w.door, &bent) != "" {
			t.Errorf("%.10q is good", text)
		}
	}
	begun, err := w.door.key.seal("begun", s)
	if err != nil {
		t.Fatal(err)
	}
	bent := *good
	if bent.Value = begun; who(w.door, &bent) != "" {
		t.Error("a cookie for another use is good")
	}
	w.door.now = func() time.Time { return time.Now().Add(time.Hour) }
	if who(w.door, good) != "" {
		t.Error("it never ends")
	}
	if _, err := w.door.key.seal("session", session{Token: strings.Repeat("x", 4096)}); err == nil {
		t.Error("a cookie that no browser keeps is made")
	}
	// Over TLS it is bound to the host, and to TLS.
	opt := w.door.opt
	opt.PublicURL = parse(t, "https://ci.example/path")
	d, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if c := d.cookie("session", value, time.Hour); !c.Secure || c.Name != "__Host-converge_dispatch_session" || c.Path != "/" {
		t.Errorf("%+v", c)
	}
	if who(d, good) != "" {
		t.Error("the other name or the other key is good")
	}
}

// TestKeyFile: who signed in stays so over a restart, and keys are nobody else's.
func TestKeyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cookie-key")
	first, err := newSealer(file)
	if err != nil {
		t.Fatal(err)
	}
	value, err := first.seal("x", "secret")
	if err != nil {
		t.Fatal(err)
	}
	second, err := newSealer(file)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	if !second.open("x", value, &got) || got != "secret" {
		t.Error("the key was not kept")
	}
	if other, err := newSealer(""); err != nil || other.open("x", value, &got) {
		t.Errorf("%v: everybody has the same key", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	for _, text := range []string{"", "abc", strings.Repeat("zz", keySize)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newSealer(file); err == nil || !strings.Contains(err.Error(), "delete it") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := newSealer(filepath.Join(file, "none")); err == nil {
		t.Error("a file that cannot be")
	}
}

func FuzzOpen(f *testing.F) {
	s, err := newSealer("")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, value string) {
		var got session
		if s.open("session", value, &got) {
			t.Errorf("%q is taken for a cookie", value)
		}
	})
}
