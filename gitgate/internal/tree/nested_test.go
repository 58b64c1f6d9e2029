package tree_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
	"example.com/converge/gitgate/internal/gittest"
)

// nested is a repository, and one whose folder is to be below the other's.
func nested(t *testing.T, name string) (outer, inner *gittest.Repo, around, within *config.Repo) {
	outer, inner = gittest.New(t), gittest.New(t)
	around = follow(t, outer, nil)
	return outer, inner, around, follow(t, inner, func(c *config.Repo) { c.Directory = filepath.Join(around.Directory, name) })
}

// TestNested: which of two comes first makes no difference, be the inner one in a
// folder of the outer one's.
func TestNested(t *testing.T) {
	modes := map[os.FileMode]bool{}
	for _, name := range []string{"inner", "b/plugins/inner"} {
		for _, innerFirst := range []bool{false, true} {
			outer, inner, around, within := nested(t, name)
			order := []*config.Repo{around, within}
			if innerFirst {
				order = []*config.Repo{within, around}
			}
			for _, c := range order {
				if result := must(t, c); !result.Cloned || result.Previous != "" {
					t.Errorf("%+v", result)
				}
			}
			outer.Commit()
			inner.Commit()
			for _, c := range order {
				must(t, c)
			}
			is(t, around, outer)
			is(t, within, inner)
			info, err := os.Stat(around.Directory)
			if err != nil {
				t.Fatal(err)
			}
			modes[info.Mode()] = true
		}
	}
	if len(modes) != 1 { // whoever reads the one may not come to the other
		t.Errorf("the outer folders' modes are %v", modes)
	}
}

// TestNestedPublished: the inner one's link stays.
func TestNestedPublished(t *testing.T) {
	outer, inner, around, within := nested(t, "inner")
	within.Publish = config.Symlink
	must(t, within)
	must(t, around)
	is(t, around, outer)
	is(t, within, inner)
}

// TestNestedRefused: what is not gitgate's stays, and so does an inner repository
// that the outer one has a file in the place of.
func TestNestedRefused(t *testing.T) {
	_, inner, around, within := nested(t, "a/inner")
	must(t, within)
	fails(t, around, gitcmd.Refused)
	is(t, within, inner)

	_, inner, around, within = nested(t, "plugins/inner")
	must(t, within)
	write(t, "mine", around.Directory, "plugins", "file")
	fails(t, around, gitcmd.Refused)
	is(t, within, inner)
	if gittest.Read(around.Directory, "plugins", "file") != "mine" {
		t.Error("somebody's file is gone")
	}
}

// TestNestedUpdate: an update does not remove or write into an inner repository,
// nor what is untracked there, and goes on once the commit has nothing there.
func TestNestedUpdate(t *testing.T) {
	for _, name := range []string{"plugins", "plugins/inner", "plugins/inner/deep"} {
		outer, inner, around, within := nested(t, "plugins/inner")
		around.Inner = []string{within.Directory}
		must(t, around)
		must(t, within)
		write(t, "mine", within.Directory, "mine")
		outer.Write(name, "in the way")
		outer.Push("master")
		if err := fails(t, around, gitcmd.Refused); !strings.Contains(err.Error(), "plugins") || !strings.Contains(err.Error(), around.Directory) {
			t.Errorf("%s: %v", name, err)
		}
		is(t, within, inner)
		if gittest.Read(within.Directory, "mine") != "mine" {
			t.Errorf("%s: somebody's file is gone", name)
		}
		if err := os.RemoveAll(filepath.Join(outer.Work, "plugins")); err != nil {
			t.Fatal(err)
		}
		outer.Write("plugins/other", "beside it")
		outer.Push("master")
		must(t, around)
		is(t, around, outer)
		is(t, within, inner)
	}
}

// TestNestedFile: the outer repository has a file where the inner one, or a folder
// on the way to it, is to be.
func TestNestedFile(t *testing.T) {
	for _, name := range []string{"a", "a/inner"} {
		_, _, around, within := nested(t, name)
		must(t, around)
		if err := fails(t, within, gitcmd.Refused); !strings.Contains(err.Error(), filepath.Join(around.Directory, "a")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
