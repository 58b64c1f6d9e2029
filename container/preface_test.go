package container

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// What comes first is the same however it was cut.
func TestPreface(t *testing.T) {
	number := func(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
	for _, c := range []struct {
		name, in  string
		line, pid bool
		out       string
		number    uint32
		err       string
	}{
		{"nothing", "output", false, false, "output", 0, ""},
		{"pid", number(77) + "output", false, true, "output", 77, ""},
		{"pid alone", number(1 << 22), false, true, "", 1 << 22, ""},
		{"pid with a newline", number(0x0a0d0a) + "\n", false, true, "\n", 0x0a0d0a, ""},
		{"echo", "\r\n" + number(10) + "\r\n", true, true, "\r\n", 10, ""},
		{"echo that is not changed", "\n" + number(10), true, true, "", 10, ""},
		{"echo without pid", "\r\nout", true, false, "out", 0, ""},
		{"the engine's words", "OCI runtime exec failed: no such file\r\n", false, true, "", 0, "OCI runtime exec failed: no such file"},
		{"words in place of an echo", "OCI runtime exec failed\r\n", true, true, "", 0, "OCI runtime exec failed"},
		{"no words", "", false, true, "", 0, "without a word"},
		{"cut", "ab", false, true, "", 0, "ab"},
		{"zero", number(0) + "x", false, true, "", 0, "did not begin"},
	} {
		for _, chunk := range []int{1, 2, 3, 5, 1000} {
			var out bytes.Buffer
			f := newPreface(&out, prologue{wait: c.line, pid: c.pid})
			for rest := []byte(c.in); len(rest) > 0; {
				n := min(chunk, len(rest))
				if m, err := f.Write(rest[:n]); m != n || err != nil {
					t.Fatalf("%s: %d, %v", c.name, m, err)
				}
				rest = rest[n:]
			}
			known := closed(f.done)
			f.end()
			if out.String() != c.out || f.number != c.number && f.err == nil || known != (c.err == "") ||
				(f.err == nil) != (c.err == "") || f.err != nil && !strings.Contains(f.err.Error(), c.err) {
				t.Errorf("%s in chunks of %d: output %q, pid %d, known %v, error %v", c.name, chunk, out.String(), f.number, known, f.err)
			}
		}
	}
}

func TestEndedBy(t *testing.T) {
	for _, c := range []struct {
		code int
		tty  bool
		sent string
		want string
	}{
		{0, false, "", ""}, {128, false, "", ""}, {137, false, "", "KILL"}, {143, false, "", "TERM"},
		// The last command of a shell that was interrupted.
		{130, false, "", ""}, {130, true, "", ""}, {137, true, "", ""},
		{130, true, "INT", "INT"}, {130, false, "TERM", ""}, {255, false, "", ""}, {200, false, "", ""},
	} {
		if got := endedBy(c.code, c.tty, map[string]bool{c.sent: true}); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestOwner(t *testing.T) {
	me := self()
	read, ok := parseOwner(me.String())
	if !ok || read != me || me.gone(me) {
		t.Errorf("%q: %+v, %v", me.String(), read, ok)
	}
	for _, text := range []string{"", "2/a/b/3/4", "1//b/3/4", "1/a/b//4", "1/a/b/3", "1/a/b/3/4/5"} {
		if _, ok := parseOwner(text); ok {
			t.Errorf("%q was read", text)
		}
	}
	other := me
	other.pid = "4194399" // more than there can be
	for _, c := range []struct {
		change func(*owner)
		gone   bool
	}{
		{func(*owner) {}, true},
		{func(o *owner) { o.machine = "another" }, false},
		{func(o *owner) { o.space = "another" }, false},
		{func(o *owner) { o.pid = "../1" }, false},
	} {
		o := other
		c.change(&o)
		if got := o.gone(me); got != c.gone {
			t.Errorf("%+v: %v", o, got)
		}
	}
}
