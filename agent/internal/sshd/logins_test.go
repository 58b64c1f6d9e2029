//go:build linux

package sshd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh/agent"

	"example.com/converge/pkg/watchtest"
)

// After 500 logins and logouts, each with something of all that a user may do,
// in any state when it ends, no process, descriptor, goroutine or file is left.
func TestFiveHundredLogins(t *testing.T) {
	const rounds = 500
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	// A shell's own memory is none of ours.
	b := newBench(t, func(c *Config) { c.Env = append(c.Env, "HISTFILE=/dev/null") })
	to := newTarget(t, "tcp", "127.0.0.1:0", mirror)
	keyring := agent.NewKeyring()
	socket := filepath.Join(b.dir, "s")
	round := func(n int) {
		client, err := b.tryDial(testUser)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		switch n % 10 {
		case 0: // an agent of keys, used
			if err := agent.ForwardToAgent(client, keyring); err != nil {
				t.Fatal(err)
			}
			out, err := withAgent(t, b, client).CombinedOutput("ssh-add -l")
			if err == nil || !strings.Contains(string(out), "no identities") {
				t.Errorf("%q %v", out, err)
			}
		case 1: // a forward that is done, and one that is not
			nc, err := client.Dial("tcp", to.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			askMirror(t, nc, []byte("x"))
			if _, err := client.Dial("tcp", to.Addr().String()); err != nil {
				t.Fatal(err)
			}
		case 2: // listeners, one with a connection that nobody takes
			if _, err := client.ListenUnix(socket); err != nil {
				t.Fatal(err)
			}
			l, err := client.Listen("tcp", "localhost:0")
			if err != nil {
				t.Fatal(err)
			}
			nc, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
		case 3: // a shell with a job in the background
			shell := b.terminal(client, nil, "")
			shell.typeIn(t, "sleep "+nap(3671)+" & echo re'ad'y\n")
			shell.out.Expect(t, "ready")
		case 4: // a command that reads for ever, and one that is stopped
			for _, line := range []string{"cat", "echo x; kill -STOP $$"} {
				session, err := client.NewSession()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := session.StdinPipe(); err != nil {
					t.Fatal(err)
				}
				if err := session.Start(line); err != nil {
					t.Fatal(err)
				}
			}
		case 5: // files
			session, err := client.NewSession()
			if err != nil || session.RequestSubsystem("sftp") != nil {
				t.Fatal("no sftp", err)
			}
		case 6: // a failed login
			_, _ = b.tryDial("nobody")
		default:
			if err := b.session(client).Run("exit 0"); err != nil {
				t.Error(err)
			}
		}
	}
	settled := func() bool {
		b.server.mu.Lock()
		defer b.server.mu.Unlock()
		return len(b.server.conns) == 0 && len(children()) == 0 && len(sleeping(3671)) == 0
	}
	for n := range 10 {
		round(n)
	}
	watchtest.Eventually(t, "an end of the first rounds", settled)
	files, routines := descriptors(t), runtime.NumGoroutine()
	for n := range rounds {
		round(n)
	}
	watchtest.Eventually(t, "an end of all rounds", settled)
	watchtest.Eventually(t, fmt.Sprintf("%d open files, as before", files), func() bool { return descriptors(t) <= files })
	watchtest.Eventually(t, fmt.Sprintf("%d goroutines, as before", routines), func() bool { return runtime.NumGoroutine() <= routines })
	for _, dir := range []string{tmp, b.dir} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("left in %s: %v %v", dir, entries, err)
		}
	}
	if in, out := b.events.count("forward opened 2"), b.events.count("forward closed 2"); in == 0 || in != out {
		t.Errorf("%d forwards opened, %d closed", in, out)
	}
}

// children returns the processes that this one has started, living or dead.
func children() []string {
	var list []string
	for _, pid := range processes() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(after); len(fields) > 1 && fields[1] == fmt.Sprint(os.Getpid()) {
			list = append(list, string(stat))
		}
	}
	return list
}
