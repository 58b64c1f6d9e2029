package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// text is a CBOR text of less than 24 bytes, in hexadecimal.
func text(s string) string { return hex.EncodeToString(appendText(nil, s)) }

// TestBytes has the bytes of the original, written out by hand from RFC 8949.
func TestBytes(t *testing.T) {
	for _, test := range []struct {
		packet Packet
		want   string
	}{
		{
			Packet{Type: TypeData, ConnectionID: 1, Payload: []byte("hi")},
			"a3 64 54797065 03 6c 436f6e6e656374696f6e4964 01 67 5061796c6f6164 42 6869",
		},
		{
			Packet{Type: TypeSuccess},
			"a3 64 54797065 01 6c 436f6e6e656374696f6e4964 00 67 5061796c6f6164 f6",
		},
		{
			Packet{Type: TypeClose, ConnectionID: 1 << 40, Payload: []byte{}},
			"a3 64 54797065 05 6c 436f6e6e656374696f6e4964 1b0000010000000000 67 5061796c6f6164 40",
		},
	} {
		want := unhex(t, test.want)
		if got := test.packet.Append(nil); !bytes.Equal(got, want) {
			t.Errorf("%+v is\n%x, want\n%x", test.packet, got, want)
		}
		got, err := NewReader(bytes.NewReader(want)).Read()
		if err != nil || !reflect.DeepEqual(got, test.packet) {
			t.Errorf("%x is %+v, %v, want %+v", want, got, err, test.packet)
		}
	}
}

func TestHeads(t *testing.T) {
	for _, test := range []struct {
		n    uint64
		want string
	}{
		{0, "00"}, {23, "17"}, {24, "1818"}, {255, "18ff"}, {256, "190100"}, {65535, "19ffff"},
		{65536, "1a00010000"}, {1<<32 - 1, "1affffffff"}, {1 << 32, "1b0000000100000000"},
	} {
		if got := hex.EncodeToString(appendHead(nil, majorUint, test.n)); got != test.want {
			t.Errorf("%d is %s, want %s", test.n, got, test.want)
		}
		if got, err := ParseWindow(unhex(t, test.want)); err != nil || got != test.n {
			t.Errorf("%s is %d, %v, want %d", test.want, got, err, test.n)
		}
	}
}

func TestPayloads(t *testing.T) {
	setup := Setup{
		ConnectionType: ConnectionX11, BindHost: "::1", BindPort: 8080, Protocol: ProtocolTCP, Screen: "0",
		SingleConnection: true, AuthProtocol: "MIT-MAGIC-COOKIE-1", AuthCookie: "00ff",
	}
	for range 2 {
		if got, err := ParseSetup(setup.Payload()); err != nil || got != setup {
			t.Errorf("got %+v, %v, want %+v", got, err, setup)
		}
		setup.Extensions = Extensions1
	}
	description := New{ProtocolUnix, "/run/x", 0, "2001:db8::1", 65535}
	if got, err := ParseNew(description.Payload()); err != nil || got != description {
		t.Errorf("got %+v, %v, want %+v", got, err, description)
	}
	granted := Granted{BindPort: 40000, Extensions: Extensions1}
	if got, err := ParseGranted(granted.Payload()); err != nil || got != granted {
		t.Errorf("got %+v, %v, want %+v", got, err, granted)
	}
	if got, err := ParseGranted(nil); err != nil || got != (Granted{}) {
		t.Errorf("no payload is %+v, %v", got, err)
	}
	// The original has no key for the extensions.
	if bytes.Contains(Setup{}.Payload(), []byte("Extensions")) {
		t.Error("a setup without extensions names them")
	}
}

// TestLiberal reads what other encoders may write.
func TestLiberal(t *testing.T) {
	for name, packet := range map[string]string{
		"other order":      "a3" + text("Payload") + "4161" + text("ConnectionId") + "05" + text("Type") + "03",
		"no length":        "bf" + text("Type") + "03" + text("ConnectionId") + "05" + text("Payload") + "4161ff",
		"long numbers":     "a3" + text("Type") + "1b0000000000000003" + text("ConnectionId") + "1900 05" + text("Payload") + "590001 61",
		"unknown keys":     "a8" + text("Type") + "03" + text("ConnectionId") + "05" + text("A") + "83 01 20 61 62" + text("B") + "bf 61 78 9f ff ff" + text("C") + "c1 fb 3ff199999999999a" + text("D") + "5f 41 61 41 62 ff" + text("E") + "a1 01 f6" + text("Payload") + "4161",
		"undefined number": "a4" + text("Type") + "03" + text("ConnectionId") + "05" + text("X") + "f7" + text("Payload") + "4161",
	} {
		r := NewReader(iotest.OneByteReader(bytes.NewReader(unhex(t, packet+packet))))
		for range 2 {
			p, err := r.Read()
			if err != nil || p.Type != TypeData || p.ConnectionID != 5 || string(p.Payload) != "a" {
				t.Errorf("%s: %+v, %v", name, p, err)
			}
		}
		if _, err := r.Read(); err != io.EOF {
			t.Errorf("%s: %v at the end", name, err)
		}
	}
	// What is null or not there is zero, as the original reads it.
	for _, packet := range []string{"a0", "a1" + text("Type") + "f6", "a2" + text("ConnectionId") + "f6" + text("Payload") + "f7"} {
		if p, err := NewReader(bytes.NewReader(unhex(t, packet))).Read(); err != nil || !reflect.DeepEqual(p, Packet{}) {
			t.Errorf("%s: %+v, %v", packet, p, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	deep := strings.Repeat("81", 20) + "00"
	for name, packet := range map[string]string{
		"no map":              "83010203",
		"number":              "03",
		"reserved head":       "bc",
		"stop code":           "ff",
		"key is a number":     "a10103",
		"key without length":  "a17f6154ff03",
		"same key twice":      "a2" + text("Type") + "03" + text("Type") + "03",
		"same unknown twice":  "a2" + text("X") + "03" + text("X") + "03",
		"negative type":       "a1" + text("Type") + "20",
		"type is a text":      "a1" + text("Type") + "6133",
		"type is a float":     "a1" + text("Type") + "f94200",
		"type is tagged":      "a1" + text("Type") + "c103",
		"type without length": "a1" + text("Type") + "1f",
		"payload is a text":   "a1" + text("Payload") + "6161",
		"payload in pieces":   "a1" + text("Payload") + "5f4161ff",
		"payload too long":    "a1" + text("Payload") + "5a00100001",
		"payload of 2^63":     "a1" + text("Payload") + "5b8000000000000000",
		"many keys":           "b821",
		"2^63 keys":           "bb8000000000000000",
		"endless keys":        "bf" + manyKeys(40),
		"key of 2^63":         "a1 7b8000000000000000",
		"too deep":            "a1" + text("X") + deep,
		"2^63 elements":       "a1" + text("X") + "9b8000000000000000" + strings.Repeat("00", 70000),
		"2^63 entries":        "a1" + text("X") + "bb8000000000000000",
		"unknown too long":    "a1" + text("X") + "5a00100000",
		"stop inside":         "a1" + text("X") + "81ff",
		"tag without length":  "a1" + text("X") + "df00",
	} {
		_, err := NewReader(bytes.NewReader(unhex(t, packet))).Read()
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole := Packet{Type: TypeData, ConnectionID: 300, Payload: []byte("hello")}.Append(nil)
	for n := 1; n < len(whole); n++ {
		if _, err := NewReader(bytes.NewReader(whole[:n])).Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
	if _, err := NewReader(bytes.NewReader(nil)).Read(); err != io.EOF {
		t.Errorf("nothing: %v", err)
	}
}

// manyKeys is entries with other keys each.
func manyKeys(n int) string {
	var b []byte
	for i := range n {
		b = appendUintEntry(b, string(rune('a'+i)), 0)
	}
	return hex.EncodeToString(b)
}

func TestMalformedPayloads(t *testing.T) {
	parsers := map[string]func([]byte) error{
		"setup":   func(b []byte) error { _, err := ParseSetup(b); return err },
		"new":     func(b []byte) error { _, err := ParseNew(b); return err },
		"granted": func(b []byte) error { _, err := ParseGranted(b); return err },
		"window":  func(b []byte) error { _, err := ParseWindow(b); return err },
	}
	valid := map[string][]byte{
		"setup": Setup{}.Payload(), "new": New{}.Payload(), "granted": Granted{}.Payload(), "window": WindowPayload(1 << 20),
	}
	for name, parse := range parsers {
		if err := parse(valid[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for n := 1; n < len(valid[name]); n++ {
			if err := parse(valid[name][:n]); !errors.Is(err, ErrFormat) {
				t.Errorf("%s cut after %d bytes: %v", name, n, err)
			}
		}
		if err := parse(append(bytes.Clone(valid[name]), 0)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s and a byte more: %v", name, err)
		}
	}
	for name, payload := range map[string]string{
		"text too long": "a1" + text("BindHost") + "791001" + strings.Repeat("61", 0x1001),
		"not UTF-8":     "a1" + text("BindHost") + "61ff",
		"bool a number": "a1" + text("SingleConnection") + "01",
		"host a number": "a1" + text("BindHost") + "01",
	} {
		if _, err := ParseSetup(unhex(t, payload)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReader reads whatever comes: it must end, take no more memory than the limits
// say, and read what it has written again.
func FuzzReader(f *testing.F) {
	f.Add(Packet{Type: TypeSetup, Payload: Setup{Protocol: ProtocolTCP, Extensions: 1}.Payload()}.Append(nil))
	f.Add(Packet{Type: TypeNew, ConnectionID: 1, Payload: New{Protocol: ProtocolTCP}.Payload()}.Append(nil))
	f.Add(Packet{Type: TypeWindow, ConnectionID: 1, Payload: WindowPayload(1 << 16)}.Append(nil))
	f.Add([]byte{0xbf, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data))
		for {
			p, err := r.Read()
			if err != nil {
				if !errors.Is(err, ErrFormat) && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("an error of another kind: %v", err)
				}
				return
			}
			if len(p.Payload) > MaxPayload {
				t.Fatalf("a payload of %d bytes", len(p.Payload))
			}
			again, err := NewReader(bytes.NewReader(p.Append(nil))).Read()
			if err != nil || !reflect.DeepEqual(again, p) {
				t.Fatalf("%+v became %+v, %v", p, again, err)
			}
			if s, err := ParseSetup(p.Payload); err == nil {
				if again, err := ParseSetup(s.Payload()); err != nil || again != s {
					t.Fatalf("%+v became %+v, %v", s, again, err)
				}
			}
			if n, err := ParseNew(p.Payload); err == nil {
				if again, err := ParseNew(n.Payload()); err != nil || again != n {
					t.Fatalf("%+v became %+v, %v", n, again, err)
				}
			}
			_, _ = ParseGranted(p.Payload)
			_, _ = ParseWindow(p.Payload)
		}
	})
}
