package frame

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestHeaderTable(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	for _, test := range []struct {
		hex string
		h   header
	}{
		{"8200", header{fin: true, op: opBinary}},
		{"0200", header{op: opBinary}},
		{"8105", header{fin: true, op: opText, length: 5}},
		{"827d", header{fin: true, op: opBinary, length: 125}},
		{"827e007e", header{fin: true, op: opBinary, length: 126}},
		{"827effff", header{fin: true, op: opBinary, length: 65535}},
		{"827f0000000000010000", header{fin: true, op: opBinary, length: 65536}},
		{"827f7fffffffffffffff", header{fin: true, op: opBinary, length: math.MaxInt64}},
		{"828501020304", header{fin: true, op: opBinary, masked: true, key: key, length: 5}},
		{"00fe010001020304", header{op: opContinuation, masked: true, key: key, length: 256}},
		{"82ff000000000001000001020304", header{fin: true, op: opBinary, masked: true, key: key, length: 65536}},
		{"8900", header{fin: true, op: opPing}},
		{"8a7d", header{fin: true, op: opPong, length: 125}},
		{"8882", header{fin: true, op: opClose, masked: true, length: 2}},
	} {
		want, err := hex.DecodeString(test.hex)
		if err != nil {
			t.Fatal(err)
		}
		if test.hex == "8882" {
			want = append(want, 0, 0, 0, 0)
		}
		if got := appendHeader(nil, test.h); !bytes.Equal(got, want) {
			t.Errorf("encode %+v: got %x, want %x", test.h, got, want)
		}
		h, n, err := parseHeader(append(bytes.Clone(want), 0xff))
		if err != nil || n != len(want) || h != test.h {
			t.Errorf("decode %x: got %+v, %d, %v", want, h, n, err)
		}
		for short := range want {
			if _, _, err := parseHeader(want[:short]); !errors.Is(err, errShort) {
				t.Errorf("decode %x, cut at %d: got %v, want errShort", want, short, err)
			}
		}
	}
}

func TestHeaderViolations(t *testing.T) {
	for hexed, text := range map[string]string{
		"c200":                 "reserved bits",
		"a200":                 "reserved bits",
		"9200":                 "reserved bits",
		"8300":                 "reserved opcode 0x3",
		"8b00":                 "reserved opcode 0xB",
		"0900":                 "fragmented control",
		"0800":                 "fragmented control",
		"897e":                 "longer than 125",
		"8a7f":                 "longer than 125",
		"887e0001":             "longer than 125",
		"827e007d":             "shortest form",
		"827f000000000000ffff": "shortest form",
		"827f8000000000000000": "highest bit",
		"82ffffffffffffffffff": "highest bit",
	} {
		b, err := hex.DecodeString(hexed)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = parseHeader(b)
		var protocol *ProtocolError
		if !errors.As(err, &protocol) || protocol.Code != CloseProtocolError || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want a protocol error with %q", hexed, err, text)
		}
	}
}

func TestClosePayload(t *testing.T) {
	for _, test := range []struct {
		payload string
		code    int
		reason  string
		fails   int
	}{
		{payload: "", code: CloseNoStatus},
		{payload: "\x03\xe8", code: 1000},
		{payload: "\x03\xf3why", code: 1011, reason: "why"},
		{payload: "\x13\x87ü", code: 4999, reason: "ü"},
		{payload: "\x03", fails: CloseProtocolError},
		{payload: "\x03\xe7", fails: CloseProtocolError}, // 999
		{payload: "\x03\xec", fails: CloseProtocolError}, // 1004
		{payload: "\x03\xed", fails: CloseProtocolError}, // 1005
		{payload: "\x03\xee", fails: CloseProtocolError}, // 1006
		{payload: "\x03\xf7", fails: CloseProtocolError}, // 1015
		{payload: "\x07\xd0", fails: CloseProtocolError}, // 2000
		{payload: "\x13\x88", fails: CloseProtocolError}, // 5000
		{payload: "\x03\xe8\xff\xfe", fails: CloseInvalidPayload},
	} {
		code, reason, err := parseClose([]byte(test.payload))
		var protocol *ProtocolError
		switch {
		case test.fails != 0:
			if !errors.As(err, &protocol) || protocol.Code != test.fails {
				t.Errorf("%q: got %d %q %v, want failure %d", test.payload, code, reason, err, test.fails)
			}
		case err != nil || code != test.code || reason != test.reason:
			t.Errorf("%q: got %d %q %v", test.payload, code, reason, err)
		}
	}
	if got := appendClose(nil, CloseAbnormal, "x"); len(got) != 0 {
		t.Errorf("a code that must not be sent gave %q", got)
	}
	long := appendClose(nil, CloseNormal, strings.Repeat("ü", 100))
	if len(long) > maxControl || !utf8.Valid(long[2:]) || len(long) < maxControl-1 {
		t.Errorf("a long reason was cut to %d bytes: %q", len(long), long)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0x82, 0x05})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := parseHeader(b)
		if err != nil {
			if n != 0 {
				t.Fatalf("error with length %d", n)
			}
			return
		}
		if n > maxHeader || h.length < 0 || (h.control() && h.length > maxControl) {
			t.Fatalf("accepted %+v of %d bytes", h, n)
		}
		if got := appendHeader(nil, h); !bytes.Equal(got, b[:n]) {
			t.Fatalf("%x decoded to %+v, which encodes to %x", b[:n], h, got)
		}
	})
}
