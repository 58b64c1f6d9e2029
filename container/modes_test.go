//go:build unix

package container_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/container"
)

func testSessionMode(t *testing.T, w *world) {
	cfg := w.config(w.shell)
	cfg.Execution.Mode = container.ModeSession
	_, c := connect(t, cfg)
	w.none(t)
	r := session(t, c).exec("cat; echo err >&2; exit 42")
	r.write("in")
	r.ends(42, "in", "err\n")
	// It goes as soon as its session has ended, not with the connection.
	r.close()
	w.none(t)

	// The end of stdin is not the end of the program: ssh -n.
	session(t, c).exec("sleep 0.3; echo late").ends(0, "late\n", "")

	r = session(t, c).exec("trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done")
	r.out.Expect(t, "ready")
	if err := r.OnSignal(1, "TERM"); err != nil {
		t.Fatal(err)
	}
	r.ends(6, "ready\n", "")

	// Without a command the image's own.
	r = session(t, c).shell()
	r.write("echo from the image\nexit 4\n")
	r.ends(4, "from the image\n", "")

	// A client that goes takes its container along.
	r = session(t, c).exec("echo ready; sleep 1000")
	r.out.Expect(t, "ready")
	r.close()

	cfg.Execution.Cmd = []string{"/bin/sh", "-c", "echo configured"}
	cfg.Execution.Host.AutoRemove = true // is ours to do
	_, c = connect(t, cfg)
	session(t, c).shell().ends(0, "configured\n", "")

	// What comes before every program does so with a terminal, too.
	cfg.Execution.Cmd, cfg.Execution.Container.Cmd = nil, []string{"if [ -t 1 ]; then echo a terminal; else echo none; fi"}
	cfg.Execution.Container.Entrypoint = []string{"/bin/sh", "-c"}
	_, c = connect(t, cfg)
	session(t, c).shell().ends(0, "none\n", "")
	r = session(t, c).terminal(80, 25).shell()
	if got := r.wait(); got != 0 || r.out.String() != "a terminal\r\n" {
		t.Errorf("status %d, output %q", got, r.out)
	}
}

func testSessionTerminal(t *testing.T, w *world) {
	cfg := w.config(w.shell)
	cfg.Execution.Mode = container.ModeSession
	_, c := connect(t, cfg)
	r := session(t, c).terminal(80, 25).exec("stty size; exit 3")
	if got := r.wait(); got != 3 || r.out.String() != "25 80\r\n" {
		t.Errorf("status %d, output %q", got, r.out)
	}
	r = session(t, c).terminal(80, 25).shell()
	if err := r.OnWindow(1, 120, 25, 0, 0); err != nil {
		t.Fatal(err)
	}
	r.write("stty size; echo a=$((1+0))\n")
	r.out.Expect(t, "a=1\r\n")
	if !strings.Contains(r.out.String(), "25 120") {
		t.Errorf("output %q", r.out)
	}
	r.write("exit 5\n")
	if got := r.wait(); got != 5 {
		t.Errorf("status %d", got)
	}
}

func testExisting(t *testing.T, w *world) {
	cfg := w.config(w.shell)
	cfg.Execution.Container.Labels = map[string]string{"step": t.Name()}
	_, c := connect(t, cfg)

	for _, name := range []string{c.ContainerID(), "label=step=" + t.Name()} {
		existing := w.config("")
		existing.Execution.Host.NetworkMode = ""
		existing.Execution.Existing = name
		h, ec := connect(t, existing)
		session(t, ec).exec("echo in it; exit 2").ends(2, "in it\n", "")
		r := session(t, ec).exec("echo $$; exec sleep 1000")
		pid := strings.TrimSpace(r.out.Expect(t, "\n"))
		_ = r.in.Close()
		h.OnDisconnect()
		// It is not ours: it goes on, without what we have started.
		session(t, c).exec("kill -0 "+pid+" 2>/dev/null").ends(1, "", "")
	}
	testManyExisting(t, w)
	// Without a guest that could be copied there is a shell all the same.
	for _, source := range []container.GuestSource{nil, func(context.Context, string, string) (string, error) { return "", errors.New("there is none") }} {
		bare := w.config("")
		bare.Execution.Host.NetworkMode = ""
		bare.Execution.Existing, bare.Execution.GuestFile, bare.Execution.Guest = c.ContainerID(), "", source
		_, bc := connect(t, bare)
		session(t, bc).exec("echo in it; exit 2").ends(2, "in it\n", "")
	}
	for _, name := range []string{"no-such-container", "label=step=none"} {
		existing := w.config("")
		existing.Execution.Existing = name
		h, err := container.New(client, "x", existing, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.OnHandshakeSuccess("user"); err == nil {
			t.Errorf("%s was found", name)
		}
		h.OnDisconnect()
	}
}

// testManyExisting: all that come at once to a container without a guest use one
// copy, which nobody replaces while it runs.
func testManyExisting(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	existing := w.config("")
	existing.Execution.Host.NetworkMode, existing.Execution.Existing = "", c.ContainerID()
	// Another file than the container was made with.
	program, err := os.ReadFile(guestFile)
	if err != nil {
		t.Fatal(err)
	}
	existing.Execution.GuestFile = filepath.Join(t.TempDir(), "guest")
	if err := os.WriteFile(existing.Execution.GuestFile, append(program, 0), 0o755); err != nil {
		t.Fatal(err)
	}
	atOnce(t, 12, existing)
}

// A process that was killed leaves its container, which the next one removes.
// Those whose process is there are left alone.
func testSweep(t *testing.T, w *world) {
	_, mine := connect(t, w.config(w.shell))
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+w.host+" "+w.shell, "CONVERGE_TEST_GUEST="+guestFile)
	// It waits for the end of this, which does not come.
	if _, err := child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "made ") {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	if n, err := container.Sweep(t.Context(), w.config(""), nil); n != 0 || err != nil {
		t.Errorf("removed %d of a process that is there, %v", n, err)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if n, err := container.Sweep(t.Context(), w.config(""), logger(t)); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if left := w.left(t); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	session(t, mine).exec("echo there").ends(0, "there\n", "")
}

// childVariable makes a process of this test one that connects, says so, and
// waits to be killed.
const childVariable = "CONVERGE_TEST_CHILD"

// child is that process.
func child(order string) int {
	host, image, _ := strings.Cut(order, " ")
	h, err := container.New(client, "child", (&world{host: host}).config(image), nil, nil, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c, err := h.OnHandshakeSuccess("user")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("made", c.ContainerID())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 1
}
