package winproc

import (
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
)

// fakeDevice is a pseudo console as Windows has them: its output ends when it
// is closed, after what it has still to show, and closing it waits for the
// reader.
type fakeDevice struct {
	out    *os.File
	rest   []byte
	sizes  [][2]int16
	closed int
	fail   error
}

func (d *fakeDevice) resize(cols, rows int16) error {
	if d.fail == nil {
		d.sizes = append(d.sizes, [2]int16{cols, rows})
	}
	return d.fail
}

func (d *fakeDevice) close() {
	d.closed++
	_, _ = d.out.Write(d.rest)
	d.out.Close()
}

func newFake(t *testing.T) (*Console, *fakeDevice) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	d := &fakeDevice{out: w}
	return &Console{Output: r, device: d, cols: 80, rows: 25}, d
}

func TestEndLetsTheOutputBeRead(t *testing.T) {
	c, d := newFake(t)
	// More than a pipe holds, so that close waits for the reader.
	d.rest = make([]byte, 1<<20)
	var ends sync.WaitGroup
	for range 3 {
		ends.Go(c.End)
	}
	text, err := io.ReadAll(c.Output)
	ends.Wait()
	if err != nil || len(text) != len(d.rest) {
		t.Errorf("read %d bytes, %v; want %d", len(text), err, len(d.rest))
	}
	if d.closed != 1 {
		t.Errorf("closed %d times", d.closed)
	}
}

func TestEndReturnsWhenTheOutputIsClosed(t *testing.T) {
	c, d := newFake(t)
	d.rest = make([]byte, 1<<20)
	ended := make(chan struct{})
	go func() {
		c.End()
		close(ended)
	}()
	// The client is gone: nobody reads.
	c.Output.Close()
	<-ended
}

func TestResizeDoesNotWaitForEnd(t *testing.T) {
	c, d := newFake(t)
	d.rest = make([]byte, 1<<20)
	ended := make(chan struct{})
	go func() {
		c.End()
		close(ended)
	}()
	// The first byte says that close is under way; the rest is not read.
	if _, err := c.Output.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := c.Resize(100, 50); err != nil {
		t.Errorf("resize after the end: %v", err)
	}
	if len(d.sizes) != 0 {
		t.Errorf("a console that has ended was resized: %v", d.sizes)
	}
	c.Output.Close()
	<-ended
}

func TestResize(t *testing.T) {
	c, d := newFake(t)
	for _, size := range [][2]uint16{{80, 25}, {0, 0}, {132, 43}, {132, 43}, {0, 43}, {65535, 32768}, {1, 1}} {
		if err := c.Resize(size[0], size[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := [][2]int16{{132, 43}, {80, 43}, {32767, 32767}, {1, 1}}
	if !slices.Equal(d.sizes, want) {
		t.Errorf("sizes %v, want %v", d.sizes, want)
	}
	d.fail = errors.New("no")
	if err := c.Resize(2, 2); err == nil {
		t.Error("an error was lost")
	}
	// What failed is tried again.
	d.fail = nil
	if err := c.Resize(2, 2); err != nil || len(d.sizes) != len(want)+1 {
		t.Errorf("sizes %v, %v", d.sizes, err)
	}
}

func TestShells(t *testing.T) {
	for _, test := range []struct{ env, want []string }{
		{nil, []string{"cmd.exe"}},
		{[]string{`ComSpec=C:\Windows\system32\cmd.exe`}, []string{`C:\Windows\system32\cmd.exe`, "cmd.exe"}},
		{[]string{`COMSPEC=a.exe`, `comspec=b.exe`}, []string{"b.exe", "cmd.exe"}},
		{
			[]string{`SHELL=C:\Program Files\Git\usr\bin\bash.exe`, "ComSpec=cmd"},
			[]string{`C:\Program Files\Git\usr\bin\bash.exe`, "cmd", "cmd.exe"},
		},
		{[]string{"SHELL=/bin/false"}, []string{"cmd.exe"}},
		{[]string{"SHELL=", "noequals"}, []string{"cmd.exe"}},
	} {
		if got := Shells(test.env); !slices.Equal(got, test.want) {
			t.Errorf("%q: got %q, want %q", test.env, got, test.want)
		}
	}
}

func TestArguments(t *testing.T) {
	const (
		cmd  = `C:\Windows\system32\cmd.exe`
		ps   = `C:\Windows\System32\WindowsPowerShell\v1.0\PowerShell.EXE`
		pwsh = "pwsh"
		bash = "C:/Program Files/Git/bin/bash.exe"
	)
	for _, test := range []struct {
		shell, line string
		terminal    bool
		args        []string
		verbatim    string
	}{
		{shell: cmd, terminal: true, args: []string{cmd}},
		{shell: cmd, args: []string{cmd}},
		{shell: cmd, line: `echo "a b" & exit 3`, verbatim: `"` + cmd + `" /d /s /c "echo "a b" & exit 3"`},
		{shell: ps, terminal: true, args: []string{ps, "-NoLogo"}},
		{shell: pwsh, args: []string{pwsh, "-NoLogo", "-NoProfile", "-Command", "-"}},
		{shell: ps, line: "exit 3", args: []string{ps, "-NoLogo", "-NoProfile", "-NonInteractive", "-Command", "exit 3"}},
		{shell: ps, line: "pause", terminal: true, args: []string{ps, "-NoLogo", "-NoProfile", "-Command", "pause"}},
		{shell: bash, terminal: true, args: []string{bash, "-l"}},
		{shell: bash, line: "a 'b c'", args: []string{bash, "-c", "a 'b c'"}},
		{shell: `C:\tools\odd.exe`, terminal: true, args: []string{`C:\tools\odd.exe`}},
		{shell: `C:\tools\odd.exe`, line: "x", args: []string{`C:\tools\odd.exe`, "-c", "x"}},
	} {
		args, verbatim := Arguments(test.shell, test.line, test.terminal)
		if !slices.Equal(args, test.args) || verbatim != test.verbatim {
			t.Errorf("%s %q: got %q %s, want %q %s", test.shell, test.line, args, verbatim, test.args, test.verbatim)
		}
	}
}
