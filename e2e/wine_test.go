//go:build wine

package e2e

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wine is where programs for Windows run.
type wine struct{ env []string }

// newWine makes a Windows of its own, for the length of the test.
func newWine(t *testing.T) *wine {
	t.Helper()
	prefix := t.TempDir()
	w := &wine{env: []string{"WINEPREFIX=" + prefix, "WINEDEBUG=-all", "WINEDLLOVERRIDES=mscoree,mshtml=", "DISPLAY="}}
	t.Cleanup(func() {
		// Its services stay for a while after the last program.
		w.run(t, "wineserver", "-k")
		w.run(t, "wineserver", "-w")
	})
	w.run(t, "wineboot", "--init").must(t)
	// Go's runtime takes its random numbers from there, and wine 8 has no such
	// library.
	library := filepath.Join(prefix, "drive_c", "windows", "system32", "bcryptprimitives.dll")
	if err := os.WriteFile(library, forwarder("bcryptprimitives.dll", "ProcessPrng", "advapi32.SystemFunction036"), 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs a command with wine's environment.
func (w *wine) run(t *testing.T, name string, args ...string) result {
	t.Helper()
	return runCommand(t, nil, "env", append(append(append([]string{}, w.env...), name), args...)...)
}

// forwarder makes a library for Windows on amd64 with one function, which is
// that of another library: "library.function". (Microsoft's PE format; the
// export directory is §6.3.)
func forwarder(name, function, target string) []byte {
	const (
		page    = 0x1000 // where the one section is in memory
		sector  = 0x200  // and in the file
		pe      = 0x40
		coff    = pe + 4
		opt     = coff + 20
		optSize = 240
		section = opt + optSize
		tables  = 40 // after the export directory: address, name, ordinal
	)
	put16, put32, put64 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	exports := make([]byte, tables+10)
	text := func(s string) uint32 {
		at := uint32(page + len(exports))
		exports = append(exports, s+"\x00"...)
		return at
	}
	put32(exports[12:], text(name))
	for at, value := range map[int]uint32{
		16: 1, 20: 1, 24: 1, // first ordinal, addresses, names
		28: page + tables, 32: page + tables + 4, 36: page + tables + 8,
	} {
		put32(exports[at:], value)
	}
	put32(exports[tables:], text(target)) // an address within the directory is a forward
	put32(exports[tables+4:], text(function))

	file := make([]byte, 2*sector)
	copy(file, "MZ")
	put32(file[0x3c:], pe)
	copy(file[pe:], "PE\x00\x00")
	for at, value := range map[int]uint16{
		coff: 0x8664, coff + 2: 1, coff + 16: optSize, coff + 18: 0x2022, // amd64, sections, a library
		opt: 0x20b, opt + 40: 6, opt + 48: 6, opt + 68: 3, opt + 70: 0x100, // PE32+, versions, console, NX
	} {
		put16(file[at:], value)
	}
	for at, value := range map[int]uint32{
		opt + 32: page, opt + 36: sector, opt + 56: 2 * page, opt + 60: sector, opt + 108: 16,
		opt + 112: page, opt + 116: uint32(len(exports)), // the first of 16 directories
		section + 8: uint32(len(exports)), section + 12: page, section + 16: sector, section + 20: sector,
		section + 36: 0x40000040, // data, to be read
	} {
		put32(file[at:], value)
	}
	put64(file[opt+24:], 0x180000000) // where it wants to be
	copy(file[section:], ".edata")
	copy(file[sector:], exports)
	return file
}

// buildForWindows builds something for Windows and returns its name.
func buildForWindows(t *testing.T, args ...string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "program.exe")
	cmd := exec.Command("go", append([]string{args[0], "-o", exe}, args[1:]...)...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %q: %v\n%s", args, err, out)
	}
	return exe
}

// wineAgent is an agent under wine with its working folder.
type wineAgent struct {
	*agent
	dir string
}

// TestWine runs what concerns Windows in the agent, and the agent itself.
func TestWine(t *testing.T) {
	w := newWine(t)
	for _, pkg := range []string{"./agent/internal/winproc", "./agent/internal/sshd"} {
		t.Run("unit "+filepath.Base(pkg), func(t *testing.T) {
			exe := buildForWindows(t, "test", "-c", pkg)
			r := w.run(t, "wine", exe, "-test.v", "-test.timeout=2m")
			if r.code != 0 || !strings.Contains(r.stdout, "--- PASS: TestConsole") {
				t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
			}
		})
	}
	agentExe := buildForWindows(t, "build", "./agent")
	s := startServer(t)
	id := newIdentity(t)
	// start adds the URL unless the options have it.
	start := func(t *testing.T, args ...string) *wineAgent {
		t.Helper()
		if !slices.Contains(args, "--") {
			args = append(args, s.ws("/agent/"+uniqueID()))
		}
		dir := t.TempDir()
		a := awaitAgent(t, start(t, w.env, "env",
			append([]string{"-C", dir, "wine", agentExe, "--authorized-key", id.public}, args...)...))
		return &wineAgent{agent: a, dir: dir}
	}

	t.Run("commands", func(t *testing.T) {
		a := start(t, "--keep")
		ssh := viaWsproxy(id, a.url)
		if r := ssh.ssh(t, nil, "cmd", "/c", "echo", "hi"); r.code != 0 || r.stdout != "hi\r\n" || r.stderr != "" {
			t.Errorf("got %+v", r)
		}
		if r := ssh.ssh(t, nil, `echo "a  b" & echo no>&2 & exit 7`); r.code != 7 ||
			strings.TrimSpace(r.stdout) != `"a  b"` || strings.TrimSpace(r.stderr) != "no" {
			t.Errorf("got %+v", r)
		}
		if r := ssh.ssh(t, strings.NewReader("echo one&echo two&exit 4\r\n"), "cmd"); r.code != 4 || !strings.Contains(r.stdout, "one\r\ntwo\r\n") {
			t.Errorf("got %+v", r)
		}
		if r := ssh.ssh(t, nil, `echo %CONVERGE_AGENTDIR% %agentdir%`); r.code != 0 || strings.Count(r.stdout, `\converge-`) != 2 {
			t.Errorf("got %+v", r)
		}
		if r := ssh.ssh(t, nil, "copy /y nul %agentdir%\\.hold"); r.code != 0 {
			t.Errorf("got %+v", r)
		}
	})

	t.Run("files", func(t *testing.T) {
		a := start(t, "--keep")
		way := viaWsproxy(id, a.url)
		file, sum := randomFile(t, 3<<20+7)
		back := filepath.Join(t.TempDir(), "back")
		way.sftp(t, "put "+file+" there\nls -l\nmkdir folder\nrename there folder/moved\nget folder/moved "+back+"\n").must(t)
		if fileSum(t, back) != sum || fileSum(t, filepath.Join(a.dir, "folder", "moved")) != sum {
			t.Error("the file has changed on its way")
		}
		way.scp(t, file, "abc@localhost:copy").must(t)
		if fileSum(t, filepath.Join(a.dir, "copy")) != sum {
			t.Error("the file has changed on its way")
		}
	})

	t.Run("hold and resume", func(t *testing.T) {
		a := start(t, "--grace", "0")
		ssh := viaWsproxy(id, a.url)
		for _, line := range []string{"hold", "extend 30m", "status"} {
			// Without the hold the agent would end with the first of them.
			if r := ssh.ssh(t, nil, `"%CONVERGE_AGENT%" `+line); r.code != 0 || !strings.Contains(r.stdout, "stays when the last") {
				t.Errorf("%s: %+v", line, r)
			}
		}
		ssh.ssh(t, nil, `"%CONVERGE_AGENT%" resume`)
		if code := a.wait(t); code != 0 {
			t.Errorf("the agent ended with %d", code)
		}
	})

	t.Run("the job's command", func(t *testing.T) {
		a := start(t, "--grace", "0", s.ws("/agent/"+uniqueID()), "--", "cmd", "/c", "echo from the job& exit 3")
		if !strings.Contains(a.out.String(), "from the job") {
			t.Errorf("the command's output is not in\n%s", a.out)
		}
		viaWsproxy(id, a.url).ssh(t, nil, "echo looked").must(t)
		if code := a.wait(t); code != 3 {
			t.Errorf("the agent ended with %d", code)
		}
	})

	// The shell takes its streams from the console by name, as wine 8 does not
	// give it to a process that starts without any.
	t.Run("exit ends the session", func(t *testing.T) {
		a := start(t, "--grace", "1s", "--expiry", "0", "--first-connect-timeout", "0")
		r := viaWsproxy(id, a.url).ssh(t, strings.NewReader("echo %TERM%-%SSH_TTY%\rexit 3\r"), "-tt", "cmd <CON >CON 2>CON")
		if r.code != 3 || !strings.Contains(r.stdout, "-windows-pty") {
			t.Errorf("got %+v", r)
		}
		if code := a.wait(t); code != 0 {
			t.Errorf("the agent ended with %d", code)
		}
	})
}
