//go:build linux

package sshd

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/pkg/watchtest"
)

// recordings returns the files of a folder, read as a player does.
func recordings(t *testing.T, dir string) (names []string, shown, resized map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	shown, resized = make(map[string]string), make(map[string]string)
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", entry.Name(), info.Mode(), err)
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
			var e []any
			if i == 0 {
				continue
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil || len(e) != 3 {
				t.Fatalf("%q: %v", line, err)
			}
			switch kind := e[1].(string); kind {
			case "o":
				shown[entry.Name()] += e[2].(string)
			case "r":
				resized[entry.Name()] += e[2].(string) + " "
			default:
				t.Errorf("an event %q", kind)
			}
		}
		names = append(names, entry.Name())
	}
	return names, shown, resized
}

// Each interactive shell has a recording of what it shows, with the sizes, and
// without what is typed but not shown.
func TestRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "recordings")
	b := newBench(t, func(c *Config) { c.Record = dir })
	client := b.dial()
	owner := b.terminal(client, nil, "")
	owner.out.Expect(t, "This shell is recorded: what the terminal shows, not what is typed.\r\n")
	if info := b.server.Shells(); len(info) != 1 || !info[0].Recorded {
		t.Errorf("%+v", info)
	}
	owner.typeIn(t, "read -s -p pass'word:' x; echo got ${#x}\n")
	owner.out.Expect(t, "password:")
	owner.typeIn(t, "top-secret\n")
	owner.out.Expect(t, "got 10\r\n")
	if err := owner.WindowChange(30, 90); err != nil {
		t.Fatal(err)
	}
	joiner := b.view("converge-join")
	joiner.out.Expect(t, " (recorded); Enter ~. leaves")
	joiner.Close()
	owner.out.Expect(t, "left this shell")
	// Commands, on a terminal or not, are not shells.
	if out, err := b.session(client).CombinedOutput("echo command"); err != nil || string(out) != "command\n" {
		t.Errorf("%q %v", out, err)
	}
	owner.typeIn(t, "echo gr'ün'; exit 3\n")
	if err := owner.Wait(); status(err) != 3 {
		t.Error(err)
	}
	second := b.terminal(client, nil, "")
	second.typeIn(t, "echo the sec'ond'; exit\n")
	if err := second.Wait(); err != nil {
		t.Error(err)
	}
	b.events.wait(t, "closed 1 shell", 2)
	client.Close()
	b.events.wait(t, "logout 1", 1) // by then the files are closed

	names, shown, resized := recordings(t, dir)
	if len(names) != 2 || !strings.HasSuffix(names[0], "Z-abc-1.cast") || !strings.HasSuffix(names[1], "Z-abc-2.cast") {
		t.Fatalf("%q", names)
	}
	first := shown[names[0]]
	for _, want := range []string{"password:", "got 10\r\n", "grün\r\n"} {
		if !strings.Contains(first, want) {
			t.Errorf("no %q in %q", want, first)
		}
	}
	if strings.Contains(first, "top-secret") {
		t.Errorf("the password is in %q", first)
	}
	if got := resized[names[0]]; got != "90x30 90x20 90x30 " {
		t.Errorf("sizes %q", got)
	}
	if !strings.Contains(shown[names[1]], "the second\r\n") {
		t.Errorf("%q", shown[names[1]])
	}
}

// A recording that fails is told to the log, and the shell goes on.
func TestRecordFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "recordings")
	var log watchtest.Output
	b := newBench(t, func(c *Config) {
		c.Record = dir
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	owner := b.terminal(b.dial(), nil, "")
	owner.typeIn(t, "echo go'es on'; exit\n")
	if err := owner.Wait(); err != nil || !strings.Contains(owner.out.String(), "goes on\r\n") {
		t.Errorf("%q %v", owner.out.String(), err)
	}
	if strings.Contains(owner.out.String(), "is recorded") {
		t.Error("the user is told that there is a recording")
	}
	if n := strings.Count(log.String(), "a shell is not recorded any further"); n != 1 {
		t.Errorf("%d warnings: %s", n, log.String())
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 3), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := b.server.cfg
	cfg.Record = file
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "cannot record to the folder") {
		t.Errorf("%v", err)
	}
}
