//go:build unix

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// quiet is the environment of agents whose shells have no start-up files.
func quiet(t *testing.T) []string {
	t.Helper()
	return []string{"HOME=" + t.TempDir()}
}

// steer starts an agent with a folder of its own for its socket.
func steer(t *testing.T, s *server, id identity, options ...string) (a *agent, runtime string) {
	t.Helper()
	runtime, err := os.MkdirTemp("", "xdg") // a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	args := append([]string{
		"--authorized-key", id.public, "--shell", "/bin/bash", "--wsproxy", tool("wsproxy"),
		"--ssh-option=-i" + id.file, "--ssh-option=-oIdentitiesOnly=yes", "--ssh-option=-Fnone", "--ssh-option=-oBatchMode=yes",
	}, options...)
	p := start(t, append(quiet(t), "XDG_RUNTIME_DIR="+runtime), tool("agent"), append(args, s.ws("/agent/"+uniqueID()))...)
	return awaitAgent(t, p), runtime
}

// status is what agent status --json prints.
type status struct {
	ID, AgentDir, Phase, Reason string
	Held, Keep                  bool
	Deadline, Limit             *time.Time
	RemainingSeconds            *float64 `json:"remaining_seconds"`
	Users                       []struct {
		Name, Remote, Key string
		Present           bool
	}
}

// TestLocalCommands: hold, extend, status, share and resume, typed inside a
// session and outside.
func TestLocalCommands(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a, runtime := steer(t, s, id, "--grace", "0")
	t.Setenv("XDG_RUNTIME_DIR", runtime) // of the shell outside
	// Other tests may have agents in the temporary folder meanwhile.
	outside := func(args ...string) result { return runCommand(t, nil, tool("agent"), append(args, "--id", a.id)...) }
	look := func() (st status) {
		t.Helper()
		r := outside("status", "--json").must(t)
		if err := json.Unmarshal([]byte(r.stdout), &st); err != nil {
			t.Fatalf("%v: %s", err, r.stdout)
		}
		return st
	}
	st := look()
	if st.ID != a.id || st.Phase != "waiting" || st.Held || st.Reason != "first-connect-timeout" || st.Deadline == nil ||
		*st.RemainingSeconds > 600 || st.Limit == nil || len(st.Users) != 0 {
		t.Errorf("at the start: %+v", st)
	}

	screen := newScreen(t, "110", "40")
	screen.typeLine(a.ssh)
	// Absolute, with the time zone; what is left; how to hold and extend.
	screen.waitFor(`The session ends at (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d \S+, \d+ min( \d+ s)? from now, unless you work on\.`)
	screen.waitFor(`touch "\$agentdir/\.hold"`)
	screen.waitFor(`More: "\$CONVERGE_AGENT" extend 30m`)
	screen.typeLine(`"$CONVERGE_AGENT" extend 30m`)
	screen.waitFor(`(?s)The session ends at .*, (39|40) min from now, unless its users work on or extend it\. It is held`)
	hold := filepath.Join(st.AgentDir, ".hold")
	info, err := os.Stat(hold)
	if err != nil || info.ModTime().Before(time.Now().Add(10*time.Minute)) {
		t.Errorf(".hold: %v, %v", info, err)
	}
	if st := look(); !st.Held || st.Phase != "active" || len(st.Users) != 1 || !st.Users[0].Present || st.Users[0].Name != "abc" {
		t.Errorf("extended: %+v", st)
	}
	// The typed line was activity, so that less is left than with the file.
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	for st := look(); st.Held; st = look() {
	}
	if st := look(); *st.RemainingSeconds > 600 {
		t.Errorf("without .hold %v s are left", *st.RemainingSeconds)
	}
	if r := outside("hold").must(t); !strings.Contains(r.stdout, "It is held: it stays when the last user logs out") {
		t.Errorf("%q", r.stdout)
	}
	screen.typeLine(`"$CONVERGE_AGENT" share`)
	screen.waitFor(`(?s)ssh -t -s.*converge-join.*converge-watch`)
	screen.typeLine("exit")
	screen.waitFor(`Connection to localhost closed`)
	if r := outside("status").must(t); !strings.Contains(r.stdout, "It is held") || strings.Contains(r.stdout, "Here: ") {
		t.Errorf("after the logout: %q", r.stdout)
	}
	screen.typeLine(a.ssh)
	screen.waitFor(`(?s)Connection to localhost closed.*It is held: it stays`)
	screen.typeLine(`"$CONVERGE_AGENT" resume`)
	screen.waitFor(`(?s)resume\s+The session ended because it was told to resume the job\..*Connection to localhost closed`)
	if code := a.wait(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, a.out)
	}
	if r := outside("status"); r.code != 1 || !strings.Contains(r.stderr, "no agent of this user has the id "+a.id) {
		t.Errorf("afterwards: exit code %d, %q", r.code, r.stderr)
	}
	if left, err := os.ReadDir(runtime); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestEndBySignal: users are told, whatever they run; nothing is left behind.
func TestEndBySignal(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		a, runtime := steer(t, s, id)
		temp := t.TempDir()
		screen := newScreen(t, "110", "30")
		screen.typeLine(a.ssh)
		screen.waitFor(`Welcome to this job`)
		// Somebody who does not want to go, and a full-screen program.
		screen.typeLine(`(trap '' HUP TERM; sleep 1000) & echo dir=$agentdir.; vim -u NONE ` + filepath.Join(temp, "file"))
		screen.waitFor(`(?m)^~\s*$`)
		a.signal(sig)
		// A second signal, as some CI systems send, changes nothing.
		a.out.Await(t, `logged out`, 1)
		a.signal(sig)
		// After vim has gone the reason is on the screen that is left.
		screen.waitFor(`(?s)told to stop by a signal\..*Connection to localhost closed`)
		if code := a.wait(t); code != 0 || !strings.Contains(a.out.String(), "told to stop by a signal") {
			t.Errorf("exit code %d:\n%s", code, a.out)
		}
		if left, err := os.ReadDir(runtime); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// TestWarningInVim: a warning over a full-screen program is seen, and changes
// neither its text nor where the next key goes.
func TestWarningInVim(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	for _, wall := range []bool{true, false} {
		options := []string{"--first-connect-timeout", "1h", "--expiry", "1h", "--max-duration", "24h", "--warning", "59m59s"}
		if !wall {
			options = append(options, "--no-wall")
		}
		a, runtime := steer(t, s, id, options...)
		screen := newScreen(t, "100", "24")
		screen.typeLine(a.ssh)
		screen.waitFor(`Welcome to this job`)
		file := filepath.Join(t.TempDir(), "file")
		screen.typeLine("vim -u NONE -n " + file + "; echo left''-vim")
		screen.waitFor(`(?m)^~\s*$`)
		screen.tmux("send-keys", "-l", "ione two")
		screen.waitFor(`one two`)
		// The keys have moved the end; a second later the first warning is due.
		a.out.Await(t, `converge: This session ends in 59 min|converge: This session ends in 1 h`, 1)
		if wall {
			screen.waitFor(`(?s)one two.*This session ends in .*To extend it: touch`)
		}
		screen.tmux("send-keys", "-l", " three")
		screen.tmux("send-keys", "Escape")
		screen.typeLine(":x")
		seen := screen.waitFor(`(?s).*left-vim`)[0]
		if got := strings.Contains(seen, "This session ends"); got && !wall {
			t.Errorf("with --no-wall the screen shows:\n%s", seen)
		}
		hasContent(t, file, "one two three\n")
		t.Setenv("XDG_RUNTIME_DIR", runtime)
		runCommand(t, nil, tool("agent"), "resume", "--id", a.id).must(t)
		screen.waitFor(`told to resume the job`)
		if code := a.wait(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}
