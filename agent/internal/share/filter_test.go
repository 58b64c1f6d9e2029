package share

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFilter(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"plain", "hello\r\nworld\t\b\a", "hello\r\nworld\t\b\a"},
		{"characters", "grün €𝄞 \xff\xfe\xe9a", "grün €𝄞 \xff\xfe\xe9a"},
		{"colours", "\x1b[1;31mred\x1b[0m\x1b[38:2:1:2:3m", "\x1b[1;31mred\x1b[0m\x1b[38:2:1:2:3m"},
		{"cursor", "\x1b[2;3H\x1b[K\x1b7\x1b8\x1bM\x1b[s\x1b[u\x1b[5 q", "\x1b[2;3H\x1b[K\x1b7\x1b8\x1bM\x1b[s\x1b[u\x1b[5 q"},
		{"modes", "\x1b[?1049h\x1b[?25l\x1b=\x1b>\x1b[!p\x1bc", "\x1b[?1049h\x1b[?25l\x1b=\x1b>\x1b[!p\x1bc"},
		{"character sets", "\x1b(0\x1b(B\x0e\x0f", "\x1b(0\x1b(B\x0e\x0f"},
		{"rectangle", "\x1b[65;1;1;5;5$x", "\x1b[65;1;1;5;5$x"},

		{"who are you", "a\x1b[cb\x1b[0cc\x1b[>cd\x1b[=ce\x1b[>qf\x1bZg\x05h", "abcdefgh"},
		{"where is the cursor", "a\x1b[6nb\x1b[?6nc\x1b[5nd", "abcd"},
		{"which modes", "a\x1b[?2026$pb\x1b[4$pc\x1b[1xd\x1b[1$wf", "abcdf"},
		{"windows", "a\x1b[18tb\x1b[8;50;100tc\x1b[21td", "abcd"},
		{"keys", "a\x1b[>4;2mb\x1b[>1uc\x1b[<ud\x1b[?ue\x1b[=1;1uf", "abcdef"},
		{"printer", "a\x1b[5ib\x1b[?4ic", "abc"},
		{"checksum", "a\x1b[1;1;1;1;5;5*yb", "ab"},
		{"control in a question", "a\x1b[\x006\x00nb\x1b[?1$\x00pc", "abc"},

		{"title", "\x1b]0;hi\x07\x1b]2;ho\x1b\\x", "\x1b]0;hi\x1b\\\x1b]2;ho\x1b\\x"},
		{"link", "\x1b]8;;http://a/\x1b\\text\x1b]8;;\x1b\\", "\x1b]8;;http://a/\x1b\\text\x1b]8;;\x1b\\"},
		{"clipboard", "a\x1b]52;c;?\x07b\x1b]52;c;Zm9v\x1b\\c", "abc"},
		{"palette", "a\x1b]4;1;?\x07b\x1b]10;?\x1b\\c\x1b]11;#ffffff\x07d\x1b]104\x07e", "abcde"},
		{"images", "a\x1bPq#0;2;0;0;0\x07~\x1b\\b\x1b_Gf=100;AAAA\x1b\\c\x1b]1337;File=:AAAA\x07d", "abcd"},
		{"status string", "a\x1bP$qm\x1b\\b\x1bP+q544e\x1b\\c", "abc"},
		{"screen's title", "a\x1bkname\x1b\\b\x1b^private\x1b\\c\x1bXstring\x1b\\d", "abcd"},

		{"cancelled", "a\x1b[31\x18b\x1b]0;x\x1ac\x1bPx\x18d", "abcd"},
		{"restarted", "a\x1b[31\x1b[32mb\x1bPx\x1b[33mc\x1b]0;x\x1b[34md\x1b\x1b[35m", "a\x1b[32mb\x1b[33mc\x1b[34md\x1b[35m"},
		{"long parameters", "a\x1b[" + strings.Repeat("1;", 1000) + "mb\x1b(" + strings.Repeat(" ", 1000) + "c", "abc"},
		{"long title", "a\x1b]0;" + strings.Repeat("x", 5000) + "\x07b\x1b]0;" + strings.Repeat("x", 5000) + "\x1b\\c", "abc"},
		{"unfinished", "a\x1b[12", "a"},
		{"unfinished character", "a\xe2\x82", "a"},
		{"false character", "a\xe2\x82b\xf0\x9f\x1b[mc", "a\xe2\x82b\xf0\x9f\x1b[mc"},
	} {
		var whole, bytewise filter
		if test.name == "long parameters" {
			// ESC ( with a thousand blanks is no sequence; what follows is text.
			test.want = "ab" + strings.Repeat(" ", 1000-(maxCSI-1)) + "c"
		}
		got := string(whole.feed(nil, []byte(test.in)))
		var one []byte
		for i := range len(test.in) {
			one = bytewise.feed(one, []byte{test.in[i]})
		}
		if got != test.want {
			t.Errorf("%s: %q, not %q", test.name, got, test.want)
		}
		if string(one) != test.want {
			t.Errorf("%s, byte by byte: %q, not %q", test.name, one, test.want)
		}
		if whole.modes != bytewise.modes || whole.busy() != bytewise.busy() {
			t.Errorf("%s: %v %v, byte by byte: %v %v", test.name, whole.modes, whole.busy(), bytewise.modes, bytewise.busy())
		}
	}
}

func TestModes(t *testing.T) {
	for _, test := range []struct {
		in    string
		full  bool
		enter string
	}{
		{"text", false, ""},
		{"\x1b[?1049h", true, "\x1b[?1049h"},
		{"\x1b[?47h\x1b[?47l", false, ""},
		{"\x1b[?1;2004;1006h\x1b=", false, "\x1b[?1h\x1b[?1006h\x1b[?2004h\x1b="},
		{"\x1b[?25l\x1b[?7l", false, "\x1b[?7l\x1b[?25l"},
		{"\x1b[?25l\x1b[?25h", false, ""},
		{"\x1b[?1049;1h\x1b=\x1b[?25l\x1b[!p", true, "\x1b[?1049h"},
		{"\x1b[?1049h\x1b[?1000h\x1bc", false, ""},
		{"\x1b[?;h\x1b[25l\x1b[?99999h", false, ""},
	} {
		var f filter
		f.feed(nil, []byte(test.in))
		if f.modes.full() != test.full || f.modes.enter() != test.enter {
			t.Errorf("%q: full %v, %q", test.in, f.modes.full(), f.modes.enter())
		}
		// What enters and then leaves ends where it began.
		var g filter
		g.feed(nil, []byte(f.modes.enter()))
		if g.modes != f.modes {
			t.Errorf("%q: entering gives %b, not %b", test.in, g.modes, f.modes)
		}
		g.feed(nil, []byte(f.modes.leave()))
		if g.modes != 0 {
			t.Errorf("%q: leaving gives %b", test.in, g.modes)
		}
	}
}

func TestHistory(t *testing.T) {
	var h history
	if p, exact := h.replay(); len(p) > 0 || !exact {
		t.Errorf("empty: %q %v", p, exact)
	}
	h.add([]byte("first\n"), 0)
	if p, exact := h.replay(); string(p) != "first\n" || !exact {
		t.Errorf("%q %v", p, exact)
	}
	line := []byte(strings.Repeat("x", 99) + "\n")
	for range 10000 {
		h.add(line, 0)
	}
	p, exact := h.replay()
	if !exact || len(p) < maxHistory-historyBlock || len(p) > maxHistory+2*historyBlock {
		t.Errorf("%d bytes, exact: %v", len(p), exact)
	}
	if !bytes.HasPrefix(p, line) || !bytes.HasSuffix(p, line) {
		t.Errorf("cut lines: %q", p[:200])
	}
	// A full-screen program that began long ago: modes, and no picture.
	var f filter
	f.feed(nil, []byte("\x1b[?1049h"))
	for range 10000 {
		h.add(line, f.modes)
	}
	p, exact = h.replay()
	if exact || !bytes.HasPrefix(p, []byte("\x1b[?1049hx")) {
		t.Errorf("exact: %v, %q", exact, p[:50])
	}
	// One that began a moment ago is whole.
	var fresh history
	fresh.add([]byte("$ vim\x1b[?1049h"), 0)
	fresh.add(line, f.modes)
	if _, exact := fresh.replay(); !exact {
		t.Error("a fresh picture is not exact")
	}
	// A large piece is kept whole and remembered not for long.
	var large history
	large.add(make([]byte, 10*maxHistory), 0)
	large.add(line, 0)
	large.add(make([]byte, maxHistory), 0)
	if large.size > maxHistory+len(line) {
		t.Errorf("%d bytes", large.size)
	}
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte("text \x1b[1mbold\x1b[m \x1b]0;title\x07"), 3)
	f.Add([]byte("\x1b[?1049h\x1b[6n\x1bPq\x1b\\\xe2\x82\xac"), 5)
	f.Add([]byte("\x1b]52;c;?\x1b[c\x1b\x1b["), 1)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		var whole, parts filter
		out := whole.feed(nil, in)
		cut = max(0, min(cut, len(in)))
		two := parts.feed(parts.feed(nil, in[:cut]), in[cut:])
		if !bytes.Equal(out, two) || whole.modes != parts.modes {
			t.Fatalf("%q, in two parts %q", out, two)
		}
		if len(whole.held) > maxOSC+1 {
			t.Fatalf("%d bytes are held", len(whole.held))
		}
		if utf8.Valid(in) && len(out) > len(in)+bytes.Count(in, []byte{7}) {
			t.Fatalf("%d bytes of %d", len(out), len(in))
		}
		// It can be looked through for its last line.
		var h history
		h.add(out, 0)
		if line := h.lastLine(); !bytes.HasSuffix(out, []byte(line)) {
			t.Fatalf("%q is not the end of %q", line, out)
		}
		// What has passed passes again, and ends where nothing is unfinished.
		var again filter
		if second := again.feed(nil, out); !bytes.Equal(second, out) && utf8.Valid(out) {
			t.Fatalf("%q, filtered again %q", out, second)
		}
		for _, bad := range []string{"\x05", "\x1b[6n", "\x1b[c", "\x1b]52;", "\x1bP", "\x1b_"} {
			if bytes.Contains(out, []byte(bad)) {
				t.Fatalf("%q is in %q", bad, out)
			}
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	text := bytes.Repeat([]byte("\x1b[32mok\x1b[m 2026-11-21T09:30:05Z a line of a log as a job writes it, more or less\r\n"), 400)
	var f filter
	var out []byte
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		out = f.feed(out[:0], text)
	}
}

func TestLastLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "",
		"a\r\nb":                               "b",
		"a\r\n\x1b[1m$\x1b[m typed":            "\x1b[1m$\x1b[m typed",
		"a\r\nb\x1b[H\x1b[2J\x1b[3J$ ":         "$ ",
		"\x1b[?2004h\x1b]0;title\x07$ x\x1b[K": "\x1b[?2004h\x1b]0;title\x1b\\$ x\x1b[K",
		"b\x1b7c\x1b(Bd":                       "d",
		"b\x1bM":                               "",
		strings.Repeat("x", 2000):              "",
		"x\r\n":                                "",
	} {
		var f filter
		var h history
		h.add(f.feed(nil, []byte(in)), 0)
		if got := h.lastLine(); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
}
