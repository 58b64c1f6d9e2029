//go:build wine

package e2e

import (
	"strings"
	"testing"
)

// TestWineControl: the named pipe by which commands of the same user reach the
// agent, and those commands.
func TestWineControl(t *testing.T) {
	w := newWine(t)
	exe := buildForWindows(t, "test", "-c", "./agent/internal/control")
	r := w.run(t, "wine", exe, "-test.v", "-test.timeout=2m")
	if r.code != 0 || !strings.Contains(r.stdout, "--- PASS: TestConversation") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	agentExe := buildForWindows(t, "build", "./agent")
	s := startServer(t)
	id := newIdentity(t)
	a := awaitAgent(t, start(t, w.env, "wine", agentExe, "--authorized-key", id.public, s.ws("/agent/"+uniqueID())))
	ssh := viaWsproxy(id, a.url)
	if r := ssh.ssh(t, nil, `"%CONVERGE_AGENT%" hold`); r.code != 0 || !strings.Contains(r.stdout, "It is held: it stays when the last user logs out") {
		t.Errorf("inside: %+v", r)
	}
	if r := w.run(t, "wine", agentExe, "status", "--json", "--id", a.id); r.code != 0 || !strings.Contains(r.stdout, `"held": true`) {
		t.Errorf("outside: %+v", r)
	}
	w.run(t, "wine", agentExe, "resume").must(t)
	if code := a.wait(t); code != 0 || !strings.Contains(a.out.String(), "told to resume the job") {
		t.Errorf("exit code %d:\n%s", code, a.out)
	}
	for code, line := range map[int][]string{0: {"cmd", "/c", "exit 0"}, 7: {"cmd", "/c", "exit 7"}, 127: {"no-such-program"}} {
		args := append([]string{agentExe, "--authorized-key", id.public, "--expiry", "1s", s.ws("/agent/" + uniqueID()), "--"}, line...)
		if r := w.run(t, "wine", args...); r.code != code || strings.Contains(r.stderr, "opening a session") != (code != 0) {
			t.Errorf("%q: %+v", line, r)
		}
	}
}
