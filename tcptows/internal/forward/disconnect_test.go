package forward

import (
	"encoding/binary"
	"strings"
	"testing"
)

// parseDisconnect reads a packet as RFC 4253, sections 6 and 11.1, has it and
// returns its text.
func parseDisconnect(t *testing.T, packet []byte) (text string) {
	t.Helper()
	if len(packet) < 16 || len(packet)%8 != 0 {
		t.Fatalf("a packet of %d bytes", len(packet))
	}
	length, padding := binary.BigEndian.Uint32(packet), int(packet[4])
	if int(length) != len(packet)-4 || padding < 4 || padding >= len(packet)-5 {
		t.Fatalf("length %d and padding %d in %d bytes", length, padding, len(packet))
	}
	payload := packet[5 : len(packet)-padding]
	if payload[0] != 1 || binary.BigEndian.Uint32(payload[1:]) != 7 {
		t.Fatalf("message %d, reason %v", payload[0], payload[1:5])
	}
	size := binary.BigEndian.Uint32(payload[5:])
	text, language := string(payload[9:9+size]), payload[9+size:]
	if string(language) != "\x00\x00\x00\x00" {
		t.Fatalf("the language tag is %v", language)
	}
	return text
}

func TestDisconnectPacket(t *testing.T) {
	for length := range 40 {
		text := strings.Repeat("x", length)
		if got := parseDisconnect(t, disconnectPacket(text)); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}
