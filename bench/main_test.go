//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"example.com/converge/bench/internal/child"
	"example.com/converge/pkg/cmdline"
)

// TestMain is also what the harness starts as its children.
func TestMain(m *testing.M) {
	if code, asked := child.Main(os.Args); asked {
		os.Exit(code)
	}
	// The race detector would let every child linger for a second.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	goleak.VerifyTestMain(m)
}

// samples is a sheet as it is written to a file.
type samples struct {
	Key     string
	Samples map[string]map[string][]float64
}

// bench runs the command line and returns the report and the samples by sheet.
func bench(t *testing.T, args ...string) (string, map[string]samples) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "samples.json")
	var out, diag strings.Builder
	args = append([]string{"bench", "--json", name}, args...)
	if code := cmdline.Run(t.Context(), program(), args, strings.NewReader(""), &out, &diag); code != 0 {
		t.Fatalf("exit code %d:\n%s%s", code, diag.String(), out.String())
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Sheets []samples }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	sheets := map[string]samples{}
	for _, sheet := range file.Sheets {
		sheets[sheet.Key] = sheet
	}
	return out.String(), sheets
}

// little is of everything that takes time.
var little = []string{
	"--rounds", "1", "--size", "256KiB", "--far-size", "128KiB", "--round-trip", "4ms",
	"--streams", "2", "--keys", "5", "--logins", "1", "--connections", "6,4", "--files", "10",
}

// cells are what a sheet must have.
type cells struct {
	sheet   string
	peers   []string
	columns []string
}

// check fails unless each cell has one sample, not what is in it.
func check(t *testing.T, sheets map[string]samples, want ...cells) {
	t.Helper()
	for _, want := range want {
		for _, peer := range want.peers {
			for _, column := range want.columns {
				got := sheets[want.sheet].Samples[peer][column]
				// CPU time has a grain: so little work may be none.
				if len(got) != 1 || got[0] < 0 || got[0] == 0 && !strings.HasSuffix(want.sheet, "-cpu") {
					t.Errorf("%s, %s, %s: samples %v, want one above 0", want.sheet, peer, column, got)
				}
			}
		}
	}
}

// TestSmokePeers sets every peer up, except the one whose program no test
// needs.
func TestSmokePeers(t *testing.T) {
	raw := []string{"tcp-copy", "splice", "converge", "nginx", "nhooyr", "yamux", "websockify"}
	ssh := append([]string{"openssh", "agent", "ssh-R"}, raw...)
	report, sheets := bench(t, append([]string{"--only", "relay,login,start", "--peers", strings.Join(ssh, ",")}, little...)...)
	check(t, sheets,
		cells{"relay-cpu", raw, []string{"up, 1 stream", "down, 1 stream", "up, 2 streams", "down, 2 streams"}},
		cells{"relay-speed", raw, []string{"up, 1 stream", "down, 2 streams"}},
		cells{"login", ssh, []string{"ms", "CPU ms of the whole chain"}},
		cells{"start", []string{"openssh", "converge"}, []string{"ms"}},
	)
	for _, want := range []string{"| versions | Go ", "### What Converge is to reach", "| relay CPU up", "### `ssh true`", "| tcp-copy |"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
}

// TestSmokeMeasures takes the measures that take longest, of few peers.
func TestSmokeMeasures(t *testing.T) {
	ssh := []string{"openssh", "agent", "converge"}
	report, sheets := bench(t, append([]string{"--only", "transfer,echo,memory,distance", "--peers", strings.Join(ssh, ",")}, little...)...)
	transfers := []string{"get", "put", "cat", "get, chacha20", "put, chacha20", "get, aes128-gcm", "put, aes128-gcm"}
	check(t, sheets,
		cells{"transfer-speed", ssh, transfers},
		cells{"transfer-cpu", ssh, transfers},
		cells{"echo", ssh, []string{"p50", "p99"}},
		cells{"distance", ssh, []string{"ssh cat up", "ssh cat down", "up, share of the window", "down, share of the window"}},
		cells{"distance", []string{"converge"}, []string{"raw up", "raw down"}},
	)
	for _, key := range []string{"memory-agents", "memory-sessions"} {
		for _, column := range []string{"at 4", "at 6", "each further one", "kernel, whole machine"} {
			// So few may cost nothing that can be seen.
			if got := sheets[key].Samples["converge"][column]; len(got) != 1 {
				t.Errorf("%s, %s: samples %v, want one", key, column, got)
			}
		}
	}
	if want := "| KiB per live idle session |"; !strings.Contains(report, want) {
		t.Errorf("the report lacks %q:\n%s", want, report)
	}
}

// TestSmokeResume takes what has to do with sessions that survive the relay.
func TestSmokeResume(t *testing.T) {
	report, sheets := bench(t, append([]string{"--only", "resume", "--rest", "0", "--peers", "converge,no-resume"}, little...)...)
	check(t, sheets, cells{"resume-pause", []string{"converge"}, []string{"away for 100ms", "away for 1s"}})
	check(t, sheets, cells{"memory-ends", []string{"converge", "no-resume"}, []string{"wsproxy, unused", "wsproxy, used"}})
	if want := "| ms of pause after a server that was away for a second |"; !strings.Contains(report, want) {
		t.Errorf("the report lacks %q:\n%s", want, report)
	}
}

// TestSmokeUpdate takes what has to do with gitgate.
func TestSmokeUpdate(t *testing.T) {
	report, sheets := bench(t, append([]string{"--only", "update"}, little...)...)
	for _, row := range []string{"git", "gitgate"} {
		for _, column := range []string{"nothing new", "one commit"} {
			if got := sheets["update"].Samples[row][column]; len(got) != 3 || got[0] <= 0 {
				t.Errorf("%s, %s: samples %v", row, column, got)
			}
		}
	}
	check(t, sheets, cells{"storm", []string{"gitgate"}, []string{"ms until all are answered", "updates", "MiB before", "MiB after"}})
	if want := "| push to updated folder, one commit, against git by a script |"; !strings.Contains(report, want) {
		t.Errorf("the report lacks %q:\n%s", want, report)
	}
}

// TestUsage: what cannot be measured is refused before anything is built.
func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--only", "nothing"}, {"--peers", "nobody"}, {"--rounds", "0"}, {"--files", "0"}, {"--streams", "-1"},
		{"--size", "1KiB"}, {"--size", "much"}, {"--size", "9000000000GiB"}, {"--far-size", "-1MiB"},
		{"--round-trip", "0s"}, {"--rest", "-1s"}, {"--connections", "many"}, {"--connections", ","}, {"argument"},
	} {
		var out, diag strings.Builder
		code := cmdline.Run(t.Context(), program(), append([]string{"bench"}, args...), strings.NewReader(""), &out, &diag)
		if code != cmdline.ExitUsage || strings.Count(diag.String(), "\n") != 1 {
			t.Errorf("%q: exit code %d, %q", args, code, diag.String())
		}
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]int64{"65536": 65536, "64KiB": 64 << 10, "512MiB": 512 << 20, "2GiB": 2 << 30, "64 MiB": 64 << 20} {
		if got, err := bytes(text); got != want || err != nil {
			t.Errorf("bytes(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
}
