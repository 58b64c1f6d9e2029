package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// plainURL is the client's URL as one writes it by hand, without the pin.
func (a *agent) plainURL() string {
	url, _, _ := strings.Cut(a.url, "#")
	return url
}

// resumed waits until the n-th client of an agent has come back.
func (a *agent) resumed(t *testing.T, n int) {
	t.Helper()
	a.out.Await(t, `msg="a client is back"`, n)
}

// TestTransferOverKilledServer: the server is killed in the middle of a
// transfer each way, by each client end, and the file is whole.
func TestTransferOverKilledServer(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	source, want := randomFile(t, 32<<20)
	all, times := t, 0
	for _, w := range []way{viaWsproxy(id, a.url), viaTcptows(t, id, a.url)} {
		for _, verb := range []string{"get", "put"} {
			t.Run(w.name+" "+verb, func(t *testing.T) {
				target := filepath.Join(t.TempDir(), "copy")
				// At most 16 MiB a second, so that it is under way for long.
				args := append([]string{"-b", writeFile(t, verb+" "+source+" "+target+"\n"), "-l", "131072"}, w.options...)
				copying := start(t, nil, "sftp", append(args, "abc@localhost")...)
				awaitSize(t, target, 2<<20)
				s.kill(t)
				s = s.restart(all) // for the next ones too
				times++
				a.resumed(t, times)
				if code := copying.wait(t); code != 0 {
					t.Fatalf("sftp exited with %d: %s", code, copying.out)
				}
				if got := fileSum(t, target); got != want {
					t.Error("the copy differs")
				}
			})
		}
	}
}

// writeFile makes a file and returns its name.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// awaitSize waits until a file has a size.
func awaitSize(t *testing.T, name string, size int64) {
	t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		if info, err := os.Stat(name); err == nil && info.Size() >= size {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%s does not grow to %d bytes", name, size)
		}
	}
}

// TestShellOverKilledServer: the printed line's shell goes on where it was, and
// its user is told in lines of their own.
func TestShellOverKilledServer(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	screen := newScreen(t, "100", "30")
	screen.typeLine(a.ssh)
	screen.waitFor(`Welcome to this job`)
	screen.typeLine("PS1='prompt> '; kept=$$")
	screen.waitFor(`(?m)^prompt> $`)
	for i := range 2 {
		screen.tmux("clear-history")
		screen.typeLine(fmt.Sprintf("clear; echo clea''red %d", i))
		screen.waitFor(fmt.Sprintf(`(?m)^cleared %d\nprompt>`, i))
		s.kill(t)
		screen.waitFor(`(?m)^prompt> *\nwsproxy: connection lost, reconnecting for up to 5m0s$`)
		screen.typeLine("echo same=$(($$ == kept))")
		s = s.restart(t)
		screen.waitFor(`(?m)^wsproxy: connected again after \d+s$`)
		screen.waitFor(`(?m)^same=1$`)
	}
	screen.typeLine("exit")
	screen.waitFor(`Connection to localhost closed`)
	a.out.Await(t, "logged out", 1)
}

// TestResumptionOff: an agent without it serves the same clients, whose
// sessions end with their connections; and its lines are ssh's own patience.
func TestResumptionOff(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id, "--resume-window", "0")
	if strings.Contains(a.ssh, "ServerAliveCountMax") || !strings.Contains(a.ssh, "ServerAliveInterval=10") {
		t.Errorf("the line is %s", a.ssh)
	}
	w := viaWsproxy(id, a.url)
	w.ssh(t, nil, "true").must(t)
	client := start(t, nil, "ssh", append(append([]string{}, w.options...), "abc@localhost", "echo in; cat")...)
	client.out.Await(t, "in", 1)
	s.kill(t)
	if code := client.wait(t); code != 255 {
		t.Errorf("the client's exit code is %d, want 255", code)
	}
	a.out.Await(t, "logged out", 2)
}

// TestClientsOfOneAgent: who resumes and who does not are served side by side.
func TestClientsOfOneAgent(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	for name, w := range map[string]way{
		"pinned": viaWsproxy(id, a.url), "by hand": viaWsproxy(id, a.plainURL()),
		"raw": viaWsproxy(id, a.plainURL(), "--raw"), "off": viaWsproxy(id, a.url, "--resume-window", "0"),
	} {
		if r := w.ssh(t, nil, "echo here").must(t); r.stdout != "here\n" {
			t.Errorf("%s: %q", name, r.stdout)
		}
	}
}

// TestClientEndsProxy: the agent knows at once that a client is gone whose
// wsproxy was told to end, as ssh does, and that a killed one may come back.
func TestClientEndsProxy(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	pids := filepath.Join(t.TempDir(), "pid")
	w := way{options: append(baseOptions(id), fmt.Sprintf("-oProxyCommand=sh -c \"echo \\$\\$ >%s; exec %s '%s'\"", pids, tool("wsproxy"), a.url))}
	for n, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		client := start(t, nil, "ssh", append(append([]string{}, w.options...), "abc@localhost", "echo in; cat")...)
		client.out.Await(t, "in", 1)
		pid, err := os.ReadFile(pids)
		if err != nil {
			t.Fatal(err)
		}
		runCommand(t, nil, "kill", "-"+fmt.Sprint(int(signal)), strings.TrimSpace(string(pid))).must(t)
		a.out.Await(t, "logged out", n+1)
		client.wait(t)
	}
	if lost := regexp.MustCompile(`its session waits`).FindString(a.out.String()); lost != "" {
		t.Errorf("the agent waits for a client that has gone:\n%s", a.out)
	}
}
