package wire

import "encoding/binary"

// The major types of RFC 8949 section 3.1, in the upper three bits of an item's
// first byte, and the simple values of section 3.3 as whole bytes.
const (
	majorUint   = 0
	majorNeg    = 1
	majorBytes  = 2
	majorText   = 3
	majorArray  = 4
	majorMap    = 5
	majorTag    = 6
	majorSimple = 7

	simpleFalse     = 0xf4
	simpleTrue      = 0xf5
	simpleNull      = 0xf6
	simpleUndefined = 0xf7
	stopCode        = 0xff
)

// appendHead appends the head of an item in its shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func appendText(b []byte, s string) []byte {
	return append(appendHead(b, majorText, uint64(len(s))), s...)
}

func appendUintEntry(b []byte, key string, n uint64) []byte {
	return appendHead(appendText(b, key), majorUint, n)
}

func appendTextEntry(b []byte, key, s string) []byte {
	return appendText(appendText(b, key), s)
}

// Append appends the packet to b. It does not check that the payload is within
// MaxPayload, beyond which no end reads it.
func (p Packet) Append(b []byte) []byte {
	b = appendHead(b, majorMap, 3)
	b = appendUintEntry(b, keyType, uint64(p.Type))
	b = appendUintEntry(b, keyConnectionID, p.ConnectionID)
	b = appendText(b, keyPayload)
	if p.Payload == nil {
		return append(b, simpleNull)
	}
	return append(appendHead(b, majorBytes, uint64(len(p.Payload))), p.Payload...)
}

// Payload is the setup as the payload of a packet.
func (s Setup) Payload() []byte {
	entries := uint64(8)
	if s.Extensions != 0 {
		entries++
	}
	b := appendHead(nil, majorMap, entries)
	b = appendUintEntry(b, keyConnectionType, uint64(s.ConnectionType))
	b = appendTextEntry(b, keyBindHost, s.BindHost)
	b = appendUintEntry(b, keyBindPort, s.BindPort)
	b = appendTextEntry(b, keyProtocol, s.Protocol)
	b = appendTextEntry(b, keyScreen, s.Screen)
	b = appendText(b, keySingleConnection)
	if s.SingleConnection {
		b = append(b, simpleTrue)
	} else {
		b = append(b, simpleFalse)
	}
	b = appendTextEntry(b, keyAuthProtocol, s.AuthProtocol)
	b = appendTextEntry(b, keyAuthCookie, s.AuthCookie)
	if s.Extensions != 0 {
		b = appendUintEntry(b, keyExtensions, s.Extensions)
	}
	return b
}

// Payload is the answer as the payload of a packet.
func (g Granted) Payload() []byte {
	b := appendHead(nil, majorMap, 2)
	b = appendUintEntry(b, keyBindPort, g.BindPort)
	return appendUintEntry(b, keyExtensions, g.Extensions)
}

// Payload is the description as the payload of a packet.
func (n New) Payload() []byte {
	b := appendHead(nil, majorMap, 5)
	b = appendTextEntry(b, keyProtocol, n.Protocol)
	b = appendTextEntry(b, keyConnectedAddress, n.ConnectedAddress)
	b = appendUintEntry(b, keyConnectedPort, n.ConnectedPort)
	b = appendTextEntry(b, keyOriginatorAddress, n.OriginatorAddress)
	return appendUintEntry(b, keyOriginatorPort, n.OriginatorPort)
}

// WindowPayload is n bytes as the payload of a packet of TypeWindow.
func WindowPayload(n uint64) []byte { return appendHead(nil, majorUint, n) }
