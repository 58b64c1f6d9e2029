package sshd

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

type directMessage struct {
	Host       string
	Port       uint32
	Origin     string
	OriginPort uint32
}

type bindMessage struct {
	Host string
	Port uint32
}

type directSocketMessage struct {
	Path, Reserved string
	ReservedPort   uint32
}

func TestParseDirectTCP(t *testing.T) {
	got, err := parseDirectTCP(ssh.Marshal(directMessage{"::1", 65535, "any\x00thing", 1 << 30}))
	if want := (address{"::1", 65535}); err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	for name, data := range map[string][]byte{
		"empty":         nil,
		"short":         ssh.Marshal(bindMessage{"localhost", 80}),
		"more":          append(ssh.Marshal(directMessage{"localhost", 80, "", 0}), 0),
		"no host":       ssh.Marshal(directMessage{"", 80, "", 0}),
		"no port":       ssh.Marshal(directMessage{"localhost", 0, "", 0}),
		"high port":     ssh.Marshal(directMessage{"localhost", 1 << 16, "", 0}),
		"long host":     ssh.Marshal(directMessage{strings.Repeat("a", maxHost+1), 80, "", 0}),
		"escape":        ssh.Marshal(directMessage{"a\x1b[2J", 80, "", 0}),
		"NUL":           ssh.Marshal(directMessage{"a\x00b", 80, "", 0}),
		"false lengths": {0xff, 0xff, 0xff, 0xff},
	} {
		if got, err := parseDirectTCP(data); err == nil {
			t.Errorf("%s is accepted: %+v", name, got)
		}
	}
}

func TestParseBind(t *testing.T) {
	for _, want := range []address{{"", 0}, {"*", 80}, {"localhost", 65535}} {
		got, err := parseBind(ssh.Marshal(bindMessage{want.host, uint32(want.port)}))
		if err != nil || got != want {
			t.Errorf("%+v %v, want %+v", got, err, want)
		}
	}
	for name, payload := range map[string][]byte{
		"empty":     nil,
		"short":     ssh.Marshal(bindMessage{"localhost", 80})[:8],
		"more":      append(ssh.Marshal(bindMessage{"localhost", 80}), 0),
		"high port": ssh.Marshal(bindMessage{"localhost", 1 << 16}),
		"long host": ssh.Marshal(bindMessage{strings.Repeat("a", maxHost+1), 80}),
		"line":      ssh.Marshal(bindMessage{"a\nb", 80}),
	} {
		if got, err := parseBind(payload); err == nil {
			t.Errorf("%s is accepted: %+v", name, got)
		}
	}
}

func TestParseSockets(t *testing.T) {
	for path, good := range map[string]bool{
		"/run/x": true, "relative": true, "@not abstract": true, "/" + strings.Repeat("a", maxSocketPath-1): true,
		"": false, "/a\x00b": false, "\x00abstract": false, "/" + strings.Repeat("a", maxSocketPath): false,
	} {
		if got, err := parseDirectSocket(ssh.Marshal(directSocketMessage{path, "x", 7})); (err == nil) != good || good && got != path {
			t.Errorf("direct %q: %q %v", path, got, err)
		}
		if got, err := parseSocket(ssh.Marshal(struct{ Path string }{path})); (err == nil) != good || good && got != path {
			t.Errorf("forward %q: %q %v", path, got, err)
		}
	}
	for _, data := range [][]byte{nil, {0, 0, 0, 1}, ssh.Marshal(struct{ Path string }{"/run/x"})} {
		if got, err := parseDirectSocket(data); err == nil {
			t.Errorf("%x is accepted: %q", data, got)
		}
	}
}

// FuzzForwards reads what asks for a forward. Whatever is accepted is within
// its limits and comes out of the message that is made of it.
func FuzzForwards(f *testing.F) {
	f.Add(ssh.Marshal(directMessage{"localhost", 80, "127.0.0.1", 4711}))
	f.Add(ssh.Marshal(bindMessage{"", 0}))
	f.Add(ssh.Marshal(directSocketMessage{"/run/x.sock", "", 0}))
	f.Add(ssh.Marshal(struct{ Path string }{"/run/x.sock"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		checkAddress := func(a address) {
			if len(a.host) > maxHost || strings.IndexFunc(a.host, notPrintable) >= 0 {
				t.Errorf("%+v", a)
			}
		}
		if a, err := parseDirectTCP(data); err == nil {
			checkAddress(a)
			if a.host == "" || a.port == 0 {
				t.Errorf("%+v", a)
			}
			// Its twin has the same form.
			again, err := parseDirectTCP(forwardedTCP(a, address{"::1", 1}))
			if err != nil || again != a {
				t.Errorf("%+v, but then %+v %v", a, again, err)
			}
		}
		if a, err := parseBind(data); err == nil {
			checkAddress(a)
			if !bytes.Equal(data, ssh.Marshal(bindMessage{a.host, uint32(a.port)})) {
				t.Errorf("%+v of %x", a, data)
			}
		}
		for _, parse := range []func([]byte) (string, error){parseDirectSocket, parseSocket} {
			if path, err := parse(data); err == nil && (path == "" || len(path) > maxSocketPath || strings.ContainsRune(path, 0)) {
				t.Errorf("path %q", path)
			}
		}
	})
}
