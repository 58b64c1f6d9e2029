package rendezvous

import (
	"errors"
	"strings"
	"testing"
)

func TestValidID(t *testing.T) {
	for _, id := range []string{
		"a", "0", "Z", "job", "team/repo/job", "a.b_c-d~e", "9/8/7", "a.", "a-/b_", "a~",
		strings.Repeat("a", MaxID), strings.Repeat("a/", MaxID/2-1) + "aa",
	} {
		if err := ValidID(id); err != nil {
			t.Errorf("ValidID(%q) = %v", id, err)
		}
	}
	for id, sentence := range map[string]string{
		"":                           "empty",
		strings.Repeat("a", MaxID+1): "longer than 128",
		"/":                          "start with a letter",
		"/a":                         "start with a letter",
		"a/":                         "ends with a slash",
		"a//b":                       "start with a letter",
		".":                          "start with a letter",
		"..":                         "start with a letter",
		"a/../b":                     "start with a letter",
		"a/.b":                       "start with a letter",
		"-a":                         "start with a letter",
		"~a":                         "start with a letter",
		"_a":                         "start with a letter",
		"a b":                        "only letters",
		"a%2Fb":                      "only letters",
		"a\x00":                      "only letters",
		"a\n":                        "only letters",
		"a\\b":                       "only letters",
		"a:b":                        "only letters",
		"a?b":                        "only letters",
		"a#b":                        "only letters",
		"aé":                         "only letters",
		"é":                          "start with a letter",
		"a\xff":                      "only letters",
		"a@b":                        "only letters",
		"a[":                         "only letters",
		"a`":                         "only letters",
		"a{":                         "only letters",
	} {
		err := ValidID(id)
		if !errors.Is(err, ErrInvalidID) || !strings.Contains(err.Error(), sentence) {
			t.Errorf("ValidID(%q) = %v, want ErrInvalidID with %q", id, err, sentence)
		}
	}
}

func TestNewID(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := NewID()
		if err := ValidID(id); err != nil {
			t.Fatal(err)
		}
		if len(id) < 26 || id != strings.ToLower(id) {
			t.Fatalf("NewID() = %q, want 26 lower-case characters or more", id)
		}
		if seen[id] {
			t.Fatalf("NewID() = %q twice", id)
		}
		seen[id] = true
	}
}

func TestAlternative(t *testing.T) {
	for _, id := range []string{
		"a", "team/repo/job", strings.Repeat("a", MaxID),
		strings.Repeat("a/", MaxID/2-1) + "aa", // where it is cut there may be a slash
		strings.Repeat("a", MaxID-12) + "/aaaaaaaaaaa",
		strings.Repeat("a", MaxID-11) + "/aaaaaaaaaa",
	} {
		first, second := Alternative(id), Alternative(id)
		if err := ValidID(first); err != nil {
			t.Errorf("Alternative(%q) = %q: %v", id, first, err)
		}
		if first == id || first == second {
			t.Errorf("Alternative(%q) is not fresh: %q, %q", id, first, second)
		}
		if !strings.HasPrefix(first, id[:min(len(id), 100)]) {
			t.Errorf("Alternative(%q) = %q does not show what it came from", id, first)
		}
	}
}

func FuzzID(f *testing.F) {
	f.Fuzz(func(t *testing.T, id string) {
		err := ValidID(id)
		if err != nil {
			if !errors.Is(err, ErrInvalidID) {
				t.Fatalf("%q: %v is not ErrInvalidID", id, err)
			}
			return
		}
		// What is valid survives every URL unchanged and means itself.
		s := Server{Host: "h", Prefix: "/p"}
		if got, back, err := ParseClientURL(s.ClientURL(id)); err != nil || got != s || back != id {
			t.Errorf("client URL of %q: %+v, %q, %v", id, got, back, err)
		}
		if got, back, err := ParseAgentURL(s.AgentURL(id)); err != nil || got != s || back != id {
			t.Errorf("agent URL of %q: %+v, %q, %v", id, got, back, err)
		}
		for part := range strings.SplitSeq(id, "/") {
			if part == "" || part == "." || part == ".." {
				t.Errorf("%q is valid and has the part %q", id, part)
			}
		}
		if err := ValidID(Alternative(id)); err != nil {
			t.Errorf("Alternative(%q): %v", id, err)
		}
	})
}
