package pins

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

func newKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newStore(t *testing.T) Store {
	t.Helper()
	return New(filepath.Join(t.TempDir(), "new folder", "known_hosts"))
}

const url = "wss://relay.example/client/Team/Job"

func same(a, b ssh.PublicKey) bool {
	return a != nil && b != nil && string(a.Marshal()) == string(b.Marshal())
}

func TestKeep(t *testing.T) {
	s := newStore(t)
	if _, found, err := s.Find(url); found || err != nil {
		t.Errorf("before anything is kept: %v, %v", found, err)
	}
	first, second := newKey(t), newKey(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		url  string
		key  ssh.PublicKey
		name string
	}{
		{url, first, ""}, {"ws://other:8080/x/client/a~b", other, "a~b.converge"},
		{url, first, "Team--Job.Converge"}, {url, second, ""}, {url, second, "team--job.ci.example"},
	} {
		if err := s.Keep(k.url, k.key, k.name); err != nil {
			t.Fatal(err)
		}
	}
	e, found, err := s.Find(url)
	if err != nil || !found || !same(e.Key, second) || !slices.Equal(e.Names, []string{"team--job.converge", "team--job.ci.example"}) {
		t.Errorf("%+v, %v, %v", e, found, err)
	}
	if e, _, err := s.Find("ws://other:8080/x/client/a~b"); err != nil || !same(e.Key, other) {
		t.Errorf("%+v, %v", e, err)
	}
	// The case of an id counts.
	if _, found, _ := s.Find("wss://relay.example/client/team/job"); found {
		t.Error("another id was found")
	}
	if info, err := os.Stat(s.Path()); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if found, err := s.Forget(url); !found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	if found, err := s.Forget(url); found || err != nil {
		t.Errorf("once more: %v, %v", found, err)
	}
	if entries, err := s.List(); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// Two ids that differ by case have one name for ssh, which is the first one's.
func TestNameTaken(t *testing.T) {
	s := newStore(t)
	if err := s.Keep(url, newKey(t), "team--job.converge"); err != nil {
		t.Fatal(err)
	}
	err := s.Keep("wss://relay.example/client/team/job", newKey(t), "Team--Job.converge")
	var taken *TakenError
	if !errors.As(err, &taken) || taken.URL != url || !strings.Contains(err.Error(), "wsproxy pin --forget "+url) {
		t.Errorf("got %v", err)
	}
	if err := s.Keep("wss://relay.example/client/team/job", newKey(t), ""); err != nil {
		t.Errorf("without the name: %v", err)
	}
}

func TestOldestGoes(t *testing.T) {
	s := newStore(t)
	key := newKey(t)
	var entries []Entry
	for i := range MaxEntries {
		entries = append(entries, Entry{URL: fmt.Sprintf("wss://relay.example/client/%d", i), Key: key})
	}
	if err := os.MkdirAll(filepath.Dir(s.Path()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path(), encode(entries), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(url, key, ""); err != nil {
		t.Fatal(err)
	}
	entries, err := s.List()
	if err != nil || len(entries) != MaxEntries || entries[0].URL != "wss://relay.example/client/1" || entries[MaxEntries-1].URL != url {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

// Several at a time lose nothing.
func TestConcurrently(t *testing.T) {
	s := newStore(t)
	key := newKey(t)
	const n = 20
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := s.Keep(fmt.Sprintf("wss://relay.example/client/%d", i), key, ""); err != nil {
				t.Error(err)
			}
			if _, err := s.List(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if entries, err := s.List(); err != nil || len(entries) != n {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(s.Path()), "*"))
	if err != nil || len(left) != 2 { // and the lock's
		t.Errorf("%q is left, %v", left, err)
	}
}

func TestRefused(t *testing.T) {
	good := Line("job.converge", newKey(t))
	for text, want := range map[string]string{
		good + "\n":                                            "line 1: it is not NAMES TYPE KEY URL",
		"#\n\n" + good + " " + url + " x\n":                    "line 3: it is not NAMES TYPE KEY URL",
		"job ssh-rsa !! " + url:                                "line 1: its key is not base64",
		"job ssh-rsa AAAA " + url:                              "line 1: it has no public key",
		strings.Replace(good, "ed25519", "rsa", 1) + " " + url: "line 1: it has no public key",
		good + " https://relay.example/client/x":               "line 1: it has no client URL",
		good + " " + url + "#pin":                              "line 1: it has no client URL",
		good + " " + url + "\n" + good + " " + url:             "line 2: the URL " + url + " comes twice",
		"*" + good + " " + url:                                 "line 1: its names are none",
		"!x," + good + " " + url:                               "line 1: its names are none",
		"|1|x|" + good + " " + url:                             "line 1: its names are none",
		"@revoked " + good + " " + url:                         "line 1: it is not NAMES TYPE KEY URL",
		strings.Repeat("#", maxFile+1):                         "the file is too large",
	} {
		s := newStore(t)
		if err := os.MkdirAll(filepath.Dir(s.Path()), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.Path(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.List(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "mend the file") {
			t.Errorf("%.80q: %v, want %q", text, err, want)
		}
		if err := s.Keep(url, newKey(t), ""); err == nil {
			t.Errorf("%.80q was written over", text)
		}
	}
	s := newStore(t)
	if err := s.Keep("wss://relay.example/agent/x", newKey(t), ""); err == nil {
		t.Error("something else than a client URL was kept")
	}
	if err := s.Keep(url, newKey(t), "a,b"); err == nil {
		t.Error("two names were kept as one")
	}
}

// FuzzDecode: what was read is written as it was.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(head + Line("a.converge,b", newKey(f)) + " " + url + "\n"))
	f.Add([]byte(Line(nameless, newKey(f)) + " ws://h/client/x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := decode(text)
		if err != nil {
			return
		}
		again, err := decode(encode(entries))
		if err != nil || len(again) != len(entries) {
			t.Fatalf("%v: %d entries, then %d", err, len(entries), len(again))
		}
		for i, e := range again {
			if e.URL != entries[i].URL || !same(e.Key, entries[i].Key) || !slices.Equal(e.Names, entries[i].Names) {
				t.Fatalf("%+v, then %+v", entries[i], e)
			}
		}
	})
}
