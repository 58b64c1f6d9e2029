package ansi

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/html"
)

// render writes a text in pieces of a size and returns the HTML of it all.
func render(text string, size int) string {
	var r Renderer
	var b strings.Builder
	for len(text) > 0 {
		n := min(size, len(text))
		if m, err := r.Write([]byte(text[:n])); m != n || err != nil {
			panic("a short write")
		}
		text = text[n:]
		if len(text) > 0 {
			lines, _ := r.Take()
			b.WriteString(lines)
		}
	}
	lines, rest := r.Take()
	return b.String() + lines + rest
}

func TestRender(t *testing.T) {
	for text, want := range map[string]string{
		"plain\n":                              "plain\n",
		"a\r\nb\r\n":                           "a\nb\n",
		"10%\r20%\r30%\n":                      "30%\n",
		"a\r":                                  "a",
		"tab\there":                            "tab\there",
		"\x1b[31mred\x1b[0m plain\n":           `<span class="f1">red</span> plain` + "\n",
		"\x1b[31mred\nmore\x1b[m\n":            `<span class="f1">red</span>` + "\n" + `<span class="f1">more</span>` + "\n",
		"\x1b[1;4;92mx":                        `<span class="f10 bo un">x</span>`,
		"\x1b[;1mx":                            `<span class="bo">x</span>`,
		"\x1b[31;mx":                           "x",
		"\x1b[38;5;200mx\x1b[48;5;16my":        `<span class="f200">x</span><span class="f200 b16">y</span>`,
		"\x1b[38;2;255;0;0mx":                  `<span class="f196">x</span>`,
		"\x1b[38:2::255:0:0mx\x1b[39my":        `<span class="f196">x</span>y`,
		"\x1b[38;2;129;129;129mx":              `<span class="f244">x</span>`,
		"\x1b[38;5;999mx\x1b[38mx\x1b[38;2;1m": "xx",
		"\x1b[38;5;1;1mx":                      `<span class="f1 bo">x</span>`,
		"\x1b[4:3mx\x1b[4:0my":                 `<span class="un">x</span>y`,
		"\x1b[7mx\x1b[31my\x1b[27mz":           `<span class="fr br">x</span><span class="fr b1">y</span><span class="f1">z</span>`,
		"\x1b[1mx\x1b[22;3mx\x1b[23;2m.\x1b[22;9m.\x1b[29m.\x1b[24;21m.": `<span class="bo">x</span><span class="it">x</span><span class="di">.</span><span class="st">.</span>.<span class="un">.</span>`,
		"\x1b[100mx\x1b[49my\x1b[45;33mz":                                `<span class="b8">x</span>y<span class="f3 b5">z</span>`,
		"a\x1b[1mb\rc":                                                   `<span class="bo">c</span>`,
		"wrong\x1b[2K\rright":                                            "right",
		"wrong\x1b[2Kright":                                              "right",

		// Nothing of what is no colour is left.
		"\x1b[2J\x1b[H\x1b[?25l\x1b[10;20Hx\x1b[3A":           "x",
		"\x1b]0;title\x07x":                                   "x",
		"\x1b]8;;javascript:alert(1)\x1b\\link\x1b]8;;\x1b\\": "link",
		"\x1b]52;c;aGVsbG8=\x1b\\x\x1bP+q\x1b\\y":             "xy",
		"\x1b]0;never ended\nthe log":                         "\nthe log",
		"\x1b(B\x1b)0x\x1b(\ny":                               "x\ny",
		"\x1b7\x1b8\x1bcx\x1b":                                "x",
		"\x1b[31":                                             "",
		"\x1b[31\nx":                                          "\nx",
		"\x1b\nx":                                             "\nx",
		"\x1b[>4;1mx\x1b[?1mx":                                "xx",
		"\u009b31mx\u009d0;t\u009cy":                          `<span class="f1">xy</span>`,
		"a\x00b\x07c\x08d\x7fe\u0085f":                        "abcdef",
		"\x1b]x\x18a\x1b]y\x1b[1mb":                           `a<span class="bo">b</span>`,

		// Nothing of HTML means anything.
		"<script>alert(1)</script>":              "&lt;script&gt;alert(1)&lt;/script&gt;",
		"&lt; \"'":                               "&amp;lt; &#34;&#39;",
		"\x1b[31m</span><img src=x onerror=y>\n": `<span class="f1">&lt;/span&gt;&lt;img src=x onerror=y&gt;</span>` + "\n",
		"\x1b[31;\"><script>mx":                  "cript&gt;mx",
		"\x1b]0;<b>\x07<\x1b[1m/\x1b[0mpre>":     `&lt;<span class="bo">/</span>pre&gt;`,

		// What is no UTF-8, and what would turn a line around.
		"a\xffb\xc3\x28":         "a\ufffdb\ufffd(",
		"user\u202e nimda\u2066": "user\ufffd nimda\ufffd",
		"a\u2028b":               "a\ufffdb",
		"grüße 🦊 \n":             "grüße 🦊 \n",
	} {
		for _, size := range []int{1, 2, 3, 1 << 20} {
			if got := render(text, size); got != want {
				t.Errorf("%q in pieces of %d is\n%q, want\n%q", text, size, got, want)
			}
		}
	}
}

// TestBounded: whatever never ends does not make it remember.
func TestBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<18)
	for name, text := range map[string]string{
		"line":     long,
		"string":   "\x1b]0;" + long,
		"sequence": "\x1b[" + strings.Repeat("1", 1<<18),
		"escapes":  strings.Repeat("\x1b", 1<<18),
		"colours":  strings.Repeat("\x1b[1m&\x1b[0m<", 1<<14),
		"returns":  strings.Repeat("&\r", 1<<16),
		"styles":   strings.Repeat("\x1b[1;2;3;4;7;9;38;5;255;48;5;255mx\x1b[1;2;3;4;9;27mx", 1<<12),
	} {
		var r Renderer
		for len(text) > 0 {
			piece := text[:min(32<<10, len(text))]
			text = text[len(piece):]
			_, _ = r.Write([]byte(piece))
			if r.line.Len() > MaxLine+100 || cap(r.done) > 24*len(piece)+2*MaxLine || len(r.params) > maxSequence+1 || len(r.rest) > 3 {
				t.Fatalf("%s: a line of %d, %d done, %d parameters", name, r.line.Len(), cap(r.done), len(r.params))
			}
			lines, _ := r.Take()
			for line := range strings.Lines(lines) {
				if len(line) > MaxLine+100 {
					t.Fatalf("%s: a line of %d", name, len(line))
				}
			}
			if cap(r.done) > MaxLine {
				t.Fatalf("%s: %d are kept", name, cap(r.done))
			}
		}
	}
	// A control string that never ends is no reason to lose the log.
	var r Renderer
	_, _ = r.Write([]byte("\x1b]0;" + strings.Repeat("x", maxString-1) + "the end"))
	if _, rest := r.Take(); rest != "the end" {
		t.Errorf("%q", rest)
	}
}

// TestResume: a stream that goes on at any line's beginning reads as if it had
// never stopped.
func TestResume(t *testing.T) {
	text := "a\n\x1b[1;31mbold\nüb\x1b[7mer\r\n\x1b[0m" + strings.Repeat("long", MaxLine/3) + "\n\x1b]0;t\nend\n<"
	whole := render(text, 1<<20)
	for cut := range len(text) {
		if cut > 60 && cut < len(text)-20 && cut%4999 != 0 {
			continue
		}
		var first Renderer
		_, _ = first.Write([]byte(text[:cut]))
		lines, _ := first.Take()
		offset, style := first.Mark()
		second := Resume(offset, ParseStyle(style.String()))
		_, _ = second.Write([]byte(text[offset:]))
		more, rest := second.Take()
		if lines+more+rest != whole {
			t.Fatalf("cut at %d, it goes on at %d", cut, offset)
		}
	}
}

func TestStyleText(t *testing.T) {
	for _, s := range []Style{{}, {Fore: 256}, {Back: 256, Flags: flags}, {Fore: 1, Back: 2, Flags: bold}} {
		if got := ParseStyle(s.String()); got != s {
			t.Errorf("%v became %v by %q", s, got, s)
		}
	}
	for _, text := range []string{"", "x", "-1", "1ff", "fffffffff", "\"><script>"} {
		if got := ParseStyle(text); got != (Style{}) {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestSheet: every class that can be written is in the style sheet.
func TestSheet(t *testing.T) {
	sheet := Sheet(".log")
	for i := range 256 {
		for _, class := range []string{fmt.Sprintf("f%d", i), fmt.Sprintf("b%d", i)} {
			if !strings.Contains(sheet, ".log ."+class+"{") {
				t.Errorf("there is no %s", class)
			}
		}
	}
	for _, class := range append([]string{"fr", "br"}, flagClasses...) {
		if !strings.Contains(sheet, ".log ."+class+"{") {
			t.Errorf("there is no %s", class)
		}
	}
	if Sheet(".log") != sheet {
		t.Error("it differs from time to time")
	}
}

var classForm = regexp.MustCompile(`^((f|b)\d{1,3}|fr|br|bo|di|it|un|st)( ((f|b)\d{1,3}|fr|br|bo|di|it|un|st))*$`)

// FuzzRender: what comes out is text and spans with known classes, as a browser's
// parser sees it, the same whatever the pieces.
func FuzzRender(f *testing.F) {
	f.Add([]byte("\x1b[31mred\x1b[0m<b>&\r\n"), uint8(3))
	f.Add([]byte("\x1b]8;;javascript:alert(1)\x1b\\link\x1b]8;;\x1b\\\x9b1m\xc2\x9b1mx"), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		whole := render(string(text), 1<<20)
		if pieces := render(string(text), int(size)+1); pieces != whole {
			t.Fatalf("%q in pieces is %q", whole, pieces)
		}
		if !utf8.ValidString(whole) || len(whole) > 24*len(text)+100 {
			t.Fatalf("%d bytes of %d", len(whole), len(text))
		}
		depth := 0
		z := html.NewTokenizer(strings.NewReader(whole))
		for {
			switch z.Next() {
			case html.ErrorToken:
				if depth != 0 {
					t.Fatalf("%q leaves an element open", whole)
				}
				return
			case html.TextToken:
			case html.StartTagToken:
				token := z.Token()
				depth++
				if token.Data != "span" || len(token.Attr) != 1 || token.Attr[0].Key != "class" || !classForm.MatchString(token.Attr[0].Val) {
					t.Fatalf("there is %v", token)
				}
			case html.EndTagToken:
				if depth--; depth != 0 || z.Token().Data != "span" {
					t.Fatalf("elements cross in %q", whole)
				}
			default:
				t.Fatalf("there is %v in %q", z.Token(), whole)
			}
		}
	})
}
