package archive

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
)

func open(t *testing.T) *Archive {
	t.Helper()
	a, err := Open(filepath.Join(t.TempDir(), "builds"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRecords(t *testing.T) {
	a := open(t)
	want := Record{Build: build.Build{ID: "builder/dispatch-1-a", Repo: "https://h/p", State: build.Failure, Exit: 2, Created: time.Unix(7, 0).UTC(), Debug: &build.Session{Line: "ssh x"}}, Told: "x"}
	if err := a.Put(want); err != nil {
		t.Fatal(err)
	}
	got, err := a.Get(want.ID)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := a.Get("../../etc"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	// What was cut, or belongs to another folder, is left out.
	for name, text := range map[string]string{"cut": `{"ID":"cut`, "stray": `{"ID":"other"}`} {
		if err := os.MkdirAll(filepath.Join(a.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(a.dir, name, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := a.All(); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := a.Delete(want.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Get(want.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestExpired: the old ones go, and of the young the oldest while there is too much.
func TestExpired(t *testing.T) {
	a := open(t)
	now := time.Now()
	var all []build.Build
	for i, age := range []time.Duration{3 * time.Hour, time.Minute, 2 * time.Minute, 0} {
		b := build.Build{ID: string(rune('a' + i)), Created: now.Add(-age)}
		f, err := a.Append(b.ID, build.Stdout)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		all = append(all, b)
	}
	if got := a.Expired(all, now, time.Hour, 1<<20, 10); !slices.Equal(got, []string{"a"}) {
		t.Error(got)
	}
	if got := a.Expired(all, now, 24*time.Hour, 2500, 10); !slices.Equal(got, []string{"c", "a"}) {
		t.Error(got)
	}
	if got := a.Expired(all, now, 24*time.Hour, 1<<20, 3); !slices.Equal(got, []string{"a"}) {
		t.Error(got)
	}
}
