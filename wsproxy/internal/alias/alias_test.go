package alias

import (
	"errors"
	"strings"
	"testing"

	"example.com/converge/pkg/rendezvous"
)

func TestNames(t *testing.T) {
	for id, name := range map[string]string{
		"job":               "job",
		"Team/Repo/42":      "Team--Repo--42",
		"a-b/c_d/e~f":       "a-b--c_d--e~f",
		"v1.2/x":            "v1.2--x",
		"job.converge":      "job.converge",
		"a/b.converge/c":    "a--b.converge--c",
		"a" + "-b-c-d-e-f-": "a-b-c-d-e-f-",
	} {
		got, err := Of(id)
		if err != nil || got != name {
			t.Errorf("%s is named %q, %v, want %q", id, got, err, name)
		}
		for _, domain := range []string{"converge", "ci.example"} {
			if again, err := ID(name+"."+domain, domain); err != nil || again != id {
				t.Errorf("%s.%s is the id %q, %v, want %q", name, domain, again, err, id)
			}
		}
		if again, err := ID(name+".Converge", "converge"); err != nil || again != id {
			t.Errorf("%s.Converge: %q, %v", name, again, err)
		}
	}
}

func TestNoName(t *testing.T) {
	for _, id := range []string{"a--b", "a-/b", "a/b--c", "a---b", "a--"} {
		if name, err := Of(id); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), id) {
			t.Errorf("%s is named %q, %v", id, name, err)
		}
	}
	for _, id := range []string{"", "/a", "a b", "../x"} {
		if name, err := Of(id); !errors.Is(err, rendezvous.ErrInvalidID) {
			t.Errorf("%q is named %q, %v", id, name, err)
		}
	}
}

func TestNotANameOfAnID(t *testing.T) {
	for _, name := range []string{
		"", "converge", ".converge", "job", "job.example", "job.converge.example", "xconverge", "--a.converge", "a--.converge",
		"a---b.converge", "a/b.converge", "$(id).converge", "-a.converge", "a b.converge", "a'.converge", "_a.converge",
	} {
		if id, err := ID(name, "converge"); err == nil {
			t.Errorf("%q is the id %q", name, id)
		}
	}
}

func TestDomains(t *testing.T) {
	for _, domain := range []string{"converge", "ci.example", "a", "x-1.y"} {
		if err := ValidDomain(domain); err != nil {
			t.Errorf("%q: %v", domain, err)
		}
	}
	for _, domain := range []string{"", ".", "a.", ".a", "-a", "a b", "*", "A", "a/b", "a%h", "a;b", strings.Repeat("a", 101)} {
		if ValidDomain(domain) == nil {
			t.Errorf("%q is one", domain)
		}
	}
}

// FuzzID never takes two names for one id, nor something else for an id.
func FuzzID(f *testing.F) {
	for _, name := range []string{"a--b.converge", "a---b.converge", "A~b_c.1.converge", "$(x).converge"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		id, err := ID(name, DefaultDomain)
		if err != nil {
			return
		}
		if err := rendezvous.ValidID(id); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		again, err := Of(id)
		if err != nil || !strings.EqualFold(again+"."+DefaultDomain, name) || again != name[:len(again)] {
			t.Fatalf("%q is %q, which is named %q, %v", name, id, again, err)
		}
	})
}
