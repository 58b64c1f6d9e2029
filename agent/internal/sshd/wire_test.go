package sshd

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/backend"
)

type ptyMessage struct {
	Term                      string
	Cols, Rows, Width, Height uint32
	Modes                     string
}

func TestParsePty(t *testing.T) {
	modes := "\x01\x00\x00\x00\x03\x35\x00\x00\x00\x00\x00ignored"
	got, err := parsePty(ssh.Marshal(ptyMessage{"xterm", 80, 24, 1 << 20, 7, modes}))
	want := backend.Terminal{Term: "xterm", Size: backend.Size{Cols: 80, Rows: 24, Width: 65535, Height: 7}, Modes: []backend.Mode{{Code: 1, Value: 3}, {Code: 53, Value: 0}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	for name, payload := range map[string][]byte{
		"empty":         nil,
		"short":         ssh.Marshal(ptyMessage{})[:10],
		"more":          append(ssh.Marshal(ptyMessage{}), 0),
		"escape":        ssh.Marshal(ptyMessage{Term: "a\x1b[2J"}),
		"NUL":           ssh.Marshal(ptyMessage{Term: "a\x00b"}),
		"long":          ssh.Marshal(ptyMessage{Term: strings.Repeat("x", maxTerm+1)}),
		"half a mode":   ssh.Marshal(ptyMessage{Modes: "\x01\x00\x00"}),
		"many modes":    ssh.Marshal(ptyMessage{Modes: strings.Repeat("\x01\x00\x00\x00\x03", maxModes+1)}),
		"false lengths": {0xff, 0xff, 0xff, 0xff},
	} {
		if _, err := parsePty(payload); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestParseModes(t *testing.T) {
	for text, want := range map[string]int{
		"":                              0,
		"\x00":                          0,
		"\x01\x00\x00\x00\x03":          1, // without an end
		"\x01\x00\x00\x00\x03\xa0ab":    1, // 160 ends it
		"\x9f\x00\x00\x00\x03\x00":      1, // unknown, with a number
		"\x00\x01\x00\x00\x00\x03\x00z": 0,
	} {
		if modes, err := parseModes([]byte(text)); err != nil || len(modes) != want {
			t.Errorf("%q: %v %v", text, modes, err)
		}
	}
}

func TestOutcome(t *testing.T) {
	name, payload := exitRequest(backend.Outcome{Status: 200})
	if name != "exit-status" || !bytes.Equal(payload, []byte{0, 0, 0, 200}) {
		t.Errorf("%s %x", name, payload)
	}
	for signal, want := range map[string]string{"SEGV": "SEGV", "BUS": "SIG@openssh.com"} {
		name, payload = exitRequest(backend.Outcome{Signal: signal, Core: true})
		var m struct {
			Signal         string
			Core           bool
			Text, Language string
		}
		if err := ssh.Unmarshal(payload, &m); err != nil || name != "exit-signal" || m.Signal != want || !m.Core || !strings.Contains(m.Text, signal) {
			t.Errorf("%s %+v %v", name, m, err)
		}
	}
}

func TestTexts(t *testing.T) {
	for text, want := range map[string]string{
		"one":               "\r\none\r\n",
		"one\ntwo\n":        "\r\none\r\ntwo\r\n",
		"a\r\nb\rc":         "\r\na\r\nb?c\r\n",
		"bell\a esc\x1b[0m": "\r\nbell? esc?[0m\r\n",
		"c1\u009b é ✓":      "\r\nc1? é ✓\r\n",
		"\xff":              "\r\n?\r\n",
	} {
		if got := wallText(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := crlf("a\nb\r\nc"); got != "a\r\nb\r\nc" {
		t.Errorf("%q", got)
	}
	if got := clip(strings.Repeat("x", 1000)); len(got) > 100 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestVariablesAreBounded(t *testing.T) {
	var v variables
	for range maxVariables {
		if !v.set("LC_A", "x", nil) {
			t.Fatal("refused")
		}
	}
	if v.set("LC_A", "x", nil) {
		t.Error("one more is accepted")
	}
	v = variables{}
	if v.set("LANG", strings.Repeat("x", maxVariableBytes), nil) || !v.set("LANG", strings.Repeat("x", maxVariableBytes-4), nil) || v.set("LANG", "", nil) {
		t.Error("the bound on bytes is another")
	}
	v = variables{}
	for _, name := range []string{"", "1A", "A-B", "LC_A=B", "LC_\x00", "LÇ"} {
		if v.set(name, "x", []string{"*"}) {
			t.Errorf("%q is accepted", name)
		}
	}
	if v.set("LANG", "a\x00b", nil) || !v.set("A1_b", "x", []string{"*"}) {
		t.Error("values")
	}
}

func TestKindNames(t *testing.T) {
	if got := Shell.String() + Exec.String() + SFTP.String() + Kind(9).String(); got != "shellexecsftpkind 9" {
		t.Error(got)
	}
}

func FuzzPty(f *testing.F) {
	f.Add(ssh.Marshal(ptyMessage{"xterm-256color", 80, 24, 640, 480, "\x35\x00\x00\x00\x01\x00"}))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := parsePty(payload)
		if err != nil {
			return
		}
		if len(got.Term) > maxTerm || len(got.Modes) > maxModes || strings.ContainsRune(got.Term, 0) {
			t.Errorf("%+v", got)
		}
		for _, m := range got.Modes {
			if m.Code == 0 || m.Code >= 160 {
				t.Errorf("opcode %d", m.Code)
			}
		}
	})
}

// FuzzRequests reads the requests that are made of strings and numbers.
func FuzzRequests(f *testing.F) {
	f.Add(ssh.Marshal(struct{ S string }{"cat > f"}))
	f.Add(ssh.Marshal(struct{ Name, Value string }{"LC_ALL", "C.UTF-8"}))
	f.Add(ssh.Marshal(struct{ C, R, X, Y uint32 }{80, 24, 0, 1 << 31}))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if s, err := parseString(payload); err == nil && len(s)+4 != len(payload) {
			t.Errorf("string of %d bytes", len(s))
		}
		if name, value, err := parseEnv(payload); err == nil {
			var v variables
			if v.set(name, value, []string{"*"}) && strings.ContainsAny(name, "=\x00") {
				t.Errorf("variable %q", name)
			}
		}
		if _, err := parseSize(payload); err == nil && len(payload) != 16 {
			t.Errorf("size of %d bytes", len(payload))
		}
	})
}
