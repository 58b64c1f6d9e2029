package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

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

// TestSetOwner: what stands behind a key tells whose it is, as somebody wrote it.
func TestSetOwner(t *testing.T) {
	_, commented := newKey(t)
	_, bare := newKey(t)
	_, literal := newKey(t)
	s, err := NewSet([]string{write(t, line(bare)+"\n"+line(commented)+" alice\x1b[2J ##vso[x] \"laptop\" "+strings.Repeat("x", 300)+"\n"+line(commented)+" later\n")},
		[]string{line(literal) + " bob@office"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		key  ssh.PublicKey
		want string
	}{{commented, `^key "alice\?\[2J #\?vso\[x\] \\"laptop\\" x{100,200}…"$`}, {bare, `^$`}, {literal, `^key "bob@office"$`}} {
		if grant, ok := s.Grant("abc", test.key); !ok || !regexp.MustCompile(test.want).MatchString(grant.Owner) {
			t.Errorf("%v, %q, want %s", ok, grant.Owner, test.want)
		}
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
