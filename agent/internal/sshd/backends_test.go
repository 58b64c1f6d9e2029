//go:build linux

package sshd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/box"
	"example.com/converge/container"
	"example.com/converge/container/enginetest"
	"example.com/converge/pkg/watchtest"
)

// world is a back end that the suite runs against.
type world struct {
	// engine is the address of one, "" for the host; real is whether its
	// containers are such, and not processes of this machine.
	engine string
	real   bool
	// shell is an image with a shell, empty one with nothing at all but the
	// file /empty.
	shell, empty string
	// left returns the containers that there are.
	left func() []string
	// many is how many connections are made at once, bulk how much is sent at
	// once, in bytes.
	many, bulk int
}

// TestBackends is the suite against the agent's own machine, and against
// containers of an engine for tests.
func TestBackends(t *testing.T) {
	t.Run("host", func(t *testing.T) {
		suite(t, &world{many: 50, bulk: 3 << 20, left: func() []string { return nil }})
	})
	for _, c := range []struct {
		version string
		split   bool
		many    int
		bulk    int
	}{{"1.41", false, 50, 3 << 20}, {"1.43", true, 10, 50_000}} {
		t.Run("fake-"+c.version, func(t *testing.T) {
			e := enginetest.New(t)
			e.Images = map[string]enginetest.Image{"shell": {Cmd: []string{"/bin/sh"}}, "empty": {NoShell: true}}
			e.Version, e.Split = c.version, c.split
			e.Start()
			suite(t, &world{engine: e.Host(), shell: "shell", empty: "empty", left: e.Containers, many: c.many, bulk: c.bulk})
		})
	}
}

// suite is what every back end has to pass.
func suite(t *testing.T, w *world) {
	tests := []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"Exec", testExec},
		{"Bulk", testBulk},
		{"InputEnd", testInputEnd},
		{"Signals", testSignals},
		{"Terminal", testTerminal},
		{"Env", testEnv},
		{"Forced", testForced},
		{"Files", testFiles},
		{"ReadOnlyFiles", testReadOnlyFiles},
		{"Forwards", testForwards},
		{"ForwardsLive", testForwardsLive},
		{"Agent", testAgent},
		{"Shared", testShared},
		{"Disconnect", testDisconnect},
		{"Shutdown", testShutdown},
		{"Many", testMany},
	}
	if w.engine != "" {
		tests = append(tests, boxTests...)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			// Cleanups run in reverse: this comes after the server's end.
			t.Cleanup(func() {
				if left := w.left(); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			})
			test.run(t, w)
		})
	}
}

// guestFile builds the guest of the tests, once. TestMain removes it.
var guestFile = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "guest")
	if err != nil {
		return "", err
	}
	file := filepath.Join(folder, "guest")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "example.com/converge/agent/internal/guesttest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the guest: %w\n%s", err, out)
	}
	guestBuilt = folder
	return file, nil
})

var guestBuilt string

// config is that of containers of an image, into which the guest is copied.
func (w *world) config(t testing.TB, image string) container.Config {
	t.Helper()
	guest, err := guestFile()
	if err != nil {
		t.Fatal(err)
	}
	var cfg container.Config
	cfg.Connection.Host = w.engine
	e := &cfg.Execution
	e.Image, e.ImagePullPolicy = image, container.PullNever
	e.GuestFile, e.GuestSFTP = guest, []string{"sftp-server"}
	e.Host.NetworkMode = "none"
	// Docker turns IPv6 off where there is no network, on loopback too.
	e.Host.Sysctls = map[string]string{"net.ipv6.conf.all.disable_ipv6": "0"}
	return cfg
}

// bench starts a server with the back end, for an image with a shell.
func (w *world) bench(t testing.TB, change func(*Config)) *bench {
	t.Helper()
	if w.engine == "" {
		return newBench(t, change)
	}
	return w.boxBench(t, w.config(t, w.shell), change)
}

// boxBench starts a server for containers.
func (w *world) boxBench(t testing.TB, cfg container.Config, change func(*Config)) *bench {
	t.Helper()
	back, err := box.New(cfg, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return newBench(t, func(c *Config) {
		c.Backend, c.Shell, c.Dir, c.Env = back, "", "", nil
		if change != nil {
			change(c)
		}
	})
}

// folder is one that programs may write to.
func (w *world) folder(t testing.TB) string {
	if w.real {
		return "/"
	}
	return t.TempDir()
}

// master starts an ssh whose connection others use, and returns the option for
// that: what belongs to a connection, such as its container, is theirs too.
func (b *bench) master(args ...string) (option string) {
	b.t.Helper()
	control := filepath.Join(b.home, "control")
	args = append([]string{"-N", "-M"}, args...)
	b.background(b.client("ssh", []string{"ControlPath=" + control}, append(args, testUser+"@127.0.0.1")...))
	watchtest.Eventually(b.t, "a master", func() bool { _, err := os.Stat(control); return err == nil })
	return "ControlPath=" + control
}

func testExec(t *testing.T, w *world) {
	b := w.bench(t, nil)
	option := b.master()
	for line, want := range map[string]struct {
		out, errs string
		code      int
	}{
		"echo out; echo err >&2; exit 42": {"out\n", "err\n", 42},
		"true":                            {"", "", 0},
		"printf 'a\\000b'; exit 200":      {"a\x00b", "", 200},
		"exec /no/such 2>/dev/null":       {"", "", 127},
	} {
		stdout, stderr, code := run(t, b.client("ssh", []string{option}, testUser+"@127.0.0.1", line))
		if stdout != want.out || stderr != want.errs || code != want.code {
			t.Errorf("%q: %q %q %d", line, stdout, stderr, code)
		}
	}
	// A shell without a terminal reads its input.
	cmd := b.client("ssh", []string{option}, "-T", testUser+"@127.0.0.1")
	cmd.Stdin = strings.NewReader("echo shell\nexit 7\n")
	if stdout, stderr, code := run(t, cmd); stdout != "shell\n" || code != 7 {
		t.Errorf("shell: %q %q %d", stdout, stderr, code)
	}
}

func testBulk(t *testing.T, w *world) {
	b := w.bench(t, nil)
	data := noise(w.bulk, 31)
	cmd := b.ssh("cat; cat >&2; exit 3")
	cmd.Stdin = strings.NewReader(string(data))
	stdout, stderr, code := run(t, cmd)
	if code != 3 || stderr != "" {
		t.Errorf("%d %q", code, stderr)
	}
	same(t, "through cat", []byte(stdout), data)
	// Output that nobody waits for any more does not hold a command up.
	session := b.session(b.dial())
	if _, err := session.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := session.Start("cat /dev/zero"); err != nil {
		t.Fatal(err)
	}
	session.Close()
}

// The end of input is not the end of the program.
func testInputEnd(t *testing.T, w *world) {
	b := w.bench(t, nil)
	cmd := b.client("ssh", nil, "-n", testUser+"@127.0.0.1", "cat; sleep 0.3; echo end; exit 5")
	if stdout, stderr, code := run(t, cmd); stdout != "end\n" || code != 5 {
		t.Errorf("-n: %q %q %d", stdout, stderr, code)
	}
	cmd = b.ssh("wc -c; sleep 0.3; exit 6")
	cmd.Stdin = strings.NewReader("12345")
	if stdout, stderr, code := run(t, cmd); strings.TrimSpace(stdout) != "5" || code != 6 {
		t.Errorf("pipe: %q %q %d", stdout, stderr, code)
	}
	// On a terminal it means nothing at all.
	cmd = b.client("ssh", nil, "-tt", testUser+"@127.0.0.1", "sleep 0.3; echo end; exit 7")
	if stdout, stderr, code := run(t, cmd); stdout != "end\r\n" || code != 7 {
		t.Errorf("terminal: %q %q %d", stdout, stderr, code)
	}
}

func testSignals(t *testing.T, w *world) {
	b := w.bench(t, nil)
	client := b.dial()
	start := func(line string) (*ssh.Session, *watchtest.Output) {
		session := b.session(client)
		var out watchtest.Output
		session.Stdout = &out
		if err := session.Start(line); err != nil {
			t.Fatal(err)
		}
		return session, &out
	}
	session, out := start("trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.1; done")
	out.Expect(t, "ready")
	if err := session.Signal(ssh.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if err := session.Wait(); status(err) != 3 || out.String() != "ready\ngot\n" {
		t.Errorf("USR1: %v %q", err, out)
	}
	session, out = start("echo ready; exec sleep 3600")
	out.Expect(t, "ready")
	if err := session.Signal(ssh.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *ssh.ExitError
	if err := session.Wait(); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("TERM: %v", err)
	}
	session, _ = start("kill -SEGV $$")
	if err := session.Wait(); !errors.As(err, &exit) || exit.Signal() != "SEGV" {
		t.Errorf("SEGV: %v", err)
	}
	session, out = start("echo ready; exec sleep 3600")
	out.Expect(t, "ready")
	if ok, err := session.SendRequest("signal", true, ssh.Marshal(struct{ Name string }{"NONE"})); ok || err != nil {
		t.Errorf("no signal: %v %v", ok, err)
	}
	session.Close()
}

// A stock client on a terminal that changes its size.
func testTerminal(t *testing.T, w *world) {
	b := w.bench(t, func(c *Config) {
		c.Banner = func(u UserInfo) string { return "welcome\n" }
	})
	cmd := b.client("ssh", []string{"EscapeChar=none"}, testUser+"@127.0.0.1")
	cmd.Env = append(cmd.Env, "TERM=xterm-test")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 25})
	if err != nil {
		t.Fatal(err)
	}
	var out watchtest.Output
	b.accept.Go(func() { _, _ = terminal.WriteTo(&out) })
	defer terminal.Close()
	typeIn := func(text string) {
		if _, err := terminal.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	out.Expect(t, "welcome\r\n")
	typeIn("stty size; echo $TERM; tty >/dev/null && echo te''rminal\n")
	out.Expect(t, "terminal\r\n")
	if text := out.String(); !strings.Contains(text, "25 80\r\n") || !strings.Contains(text, "xterm-test\r\n") {
		t.Errorf("%q", text)
	}
	if err := pty.Setsize(terminal, &pty.Winsize{Cols: 120, Rows: 25}); err != nil {
		t.Fatal(err)
	}
	typeIn("until [ \"$(stty size)\" = '25 120' ]; do sleep 0.02; done; echo re''sized\n")
	out.Expect(t, "resized\r\n")
	typeIn("exit 42\n")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 42 {
		t.Errorf("%v, want 42", err)
	}
}

func testEnv(t *testing.T, w *world) {
	b := w.bench(t, func(c *Config) { c.AcceptEnv = []string{"MY_*"} })
	stdout, stderr, code := run(t, b.client("ssh", []string{"SetEnv=LANG=C.UTF-8 MY_VALUE=\"a=b c\" OTHER=no"},
		testUser+"@127.0.0.1", `echo "$LANG,$MY_VALUE,$OTHER"; test -n "$PATH"`))
	if stdout != "C.UTF-8,a=b c,\n" || code != 0 {
		t.Errorf("%q %q %d", stdout, stderr, code)
	}
}

func testForced(t *testing.T, w *world) {
	b := w.bench(t, func(c *Config) { c.ForceCommand = `echo "<$SSH_ORIGINAL_COMMAND>"; exit 7` })
	for _, line := range []string{"rm -rf /", ""} {
		args := []string{"-T", testUser + "@127.0.0.1"}
		if line != "" {
			args = append(args, line)
		}
		stdout, stderr, code := run(t, b.client("ssh", nil, args...))
		if stdout != "<"+line+">\n" || code != 7 {
			t.Errorf("%q: %q %q %d", line, stdout, stderr, code)
		}
	}
}

// Whoever comes to a shell sees and types there, and it is recorded.
func testShared(t *testing.T, w *world) {
	dir := filepath.Join(t.TempDir(), "recordings")
	b := w.bench(t, func(c *Config) { c.Record = dir })
	owner := b.terminal(b.dial(), nil, "")
	owner.typeIn(t, "echo be''fore\n")
	owner.out.Expect(t, "before\r\n")
	joiner := b.view("converge-join")
	joiner.out.Expect(t, "before\r\n")
	// The terminal is as large as fits both, which takes an engine its time.
	joiner.typeIn(t, "until [ \"$(stty size)\" = '20 81' ]; do sleep 0.02; done; echo from''joiner\n")
	for _, s := range []*terminalSession{owner, joiner} {
		s.out.Expect(t, "fromjoiner\r\n")
	}
	b.server.Wall("news for all")
	joiner.out.Expect(t, "news for all")
	owner.typeIn(t, "exit 5\n")
	if err := owner.Wait(); status(err) != 5 {
		t.Errorf("owner: %v", err)
	}
	joiner.out.Expect(t, shellEnded)
	b.events.wait(t, "closed 1 shell", 1)
	_, shown, _ := recordings(t, dir)
	if len(shown) != 1 {
		t.Fatalf("%d recordings", len(shown))
	}
	for _, text := range shown {
		if !strings.Contains(text, "fromjoiner") {
			t.Errorf("%q", text)
		}
	}
}

// What was running when its client went away ends.
func testDisconnect(t *testing.T, w *world) {
	b := w.bench(t, nil)
	client := b.dial()
	for _, tty := range []bool{false, true} {
		session := b.session(client)
		var out watchtest.Output
		session.Stdout = &out
		if tty {
			if err := session.RequestPty("xterm", 25, 80, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := session.Start("echo rea''dy; exec sleep 3600"); err != nil {
			t.Fatal(err)
		}
		out.Expect(t, "ready")
	}
	client.Close()
	b.events.wait(t, "logout 1", 1)
	// Long before the server ends.
	watchtest.Eventually(t, "no container", func() bool { return len(w.left()) == 0 })
}

// The end of the server ends what runs, and tells why.
func testShutdown(t *testing.T, w *world) {
	b := w.bench(t, nil)
	shell := b.terminal(b.dial(), nil, "")
	shell.typeIn(t, "echo rea''dy\n")
	shell.out.Expect(t, "ready\r\n")
	command := b.session(b.dial())
	var out, errs watchtest.Output
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Start("echo ready; exec sleep 3600"); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "ready")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.server.Shutdown(ctx, "time is up"); err != nil {
		t.Error(err)
	}
	_, _ = shell.Wait(), command.Wait()
	if !strings.Contains(shell.out.String(), "time is up") || !strings.Contains(errs.String(), "converge: time is up\n") {
		t.Errorf("%q %q", shell.out, &errs)
	}
	if left := w.left(); len(left) > 0 {
		t.Errorf("left after the end: %q", left)
	}
}

// Many connections at once, each with its own place.
func testMany(t *testing.T, w *world) {
	b := w.bench(t, func(c *Config) { c.LoginTimeout = patience })
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxPending/2) // logging in
	for i := range w.many {
		wg.Go(func() {
			slots <- struct{}{}
			client, err := b.tryDial(testUser)
			<-slots
			if err != nil {
				t.Error(err)
				return
			}
			defer client.Close()
			session, err := client.NewSession()
			if err != nil {
				t.Error(err)
				return
			}
			text := fmt.Sprintf("connection %d", i)
			session.Stdin = strings.NewReader(text)
			var out, errs watchtest.Output
			session.Stdout, session.Stderr = &out, &errs
			if err := session.Run(fmt.Sprintf("cat; exit %d", i)); status(err) != i || out.String() != text {
				t.Errorf("%d: %v %q %q", i, err, &out, &errs)
			}
		})
	}
	wg.Wait()
	watchtest.Eventually(t, "no container", func() bool { return len(w.left()) == 0 })
}

// localPort is a free port of an address that nobody else listens at.
func localPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", loopback(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
