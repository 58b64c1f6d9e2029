package resume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

func TestHeader(t *testing.T) {
	for _, h := range []header{
		{kind: typeData, length: 1, acked: 1<<64 - 1},
		{kind: typeData, flags: flagAsk | flagDry, length: maxData},
		{kind: typeAck, flags: flagDry, acked: 7},
		{kind: typeClosed},
	} {
		got, err := parseHeader(h.append(nil))
		if err != nil || got != h {
			t.Errorf("%+v came back as %+v, %v", h, got, err)
		}
	}
	for name, b := range map[string][]byte{
		"no type":           {0, 0, 0, 0, 11: 0},
		"unknown type":      {byte(typeLimit), 0, 0, 0, 11: 0},
		"unknown flag":      {byte(typeAck), 4, 0, 0, 11: 0},
		"empty data":        {byte(typeData), 0, 0, 0, 11: 0},
		"too much data":     {byte(typeData), 0, 0x80, 1, 11: 0},
		"data in an ack":    {byte(typeAck), 0, 0, 1, 11: 0},
		"an end that asks":  {byte(typeEnd), flagAsk, 0, 0, 11: 0},
		"data in a closing": {byte(typeClose), 0, 1, 0, 11: 0},
	} {
		if h, err := parseHeader(b); !errors.Is(err, errFrame) {
			t.Errorf("%s: got %+v, %v, want errFrame", name, h, err)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(header{kind: typeData, flags: flagAsk, length: 5, acked: 9}.append(nil))
	f.Add(header{kind: typePing}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		h, err := parseHeader(b)
		if err != nil {
			return
		}
		if h.size() > maxFrame {
			t.Errorf("a frame of %d bytes was accepted", h.size())
		}
		if again := h.append(nil); !bytes.Equal(again, b[:headerSize]) {
			t.Errorf("%x was read as %+v, which is %x", b[:headerSize], h, again)
		}
	})
}

// prefaces are one message of each kind.
func prefaces() map[messageType][]byte {
	return map[messageType][]byte{
		msgHello:   (&hello{min: 1, max: 2, fastAES: true, buffer: 1 << 20, random: [32]byte{1}, key: [32]byte{2}}).encode(),
		msgWelcome: (&welcome{version: 1, suite: suiteGMAC, window: 300, buffer: 1 << 20, token: [16]byte{3}, hostKey: []byte("key"), signature: []byte("signature")}).encode(),
		msgResume:  (&resumption{version: 1, token: [16]byte{3}, attempt: 4, received: 5, random: [32]byte{6}, mac: [32]byte{7}}).encode(),
		msgResumed: (&resumed{received: 5, random: [32]byte{6}, mac: [32]byte{7}}).encode(),
		msgRefused: {byte(refusedGone)},
	}
}

// decodePreface parses a body and encodes it again.
func decodePreface(kind messageType, body []byte) ([]byte, error) {
	switch kind {
	case msgHello:
		m, err := parseHello(body)
		return m.encode(), err
	case msgWelcome:
		m, err := parseWelcome(body)
		return m.encode(), err
	case msgResume:
		m, err := parseResumption(body)
		return m.encode(), err
	case msgResumed:
		m, err := parseResumed(body)
		return m.encode(), err
	}
	reason, err := parseRefusal(body)
	return []byte{byte(reason)}, err
}

func TestPreface(t *testing.T) {
	for kind, body := range prefaces() {
		r := bytes.NewReader(append(encode(kind, body), "what follows"...))
		gotKind, got, err := readMessage(r)
		if err != nil || gotKind != kind || !bytes.Equal(got, body) {
			t.Errorf("message %d came back as %d, %x, %v", kind, gotKind, got, err)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "what follows" {
			t.Errorf("message %d: %q was left behind it", kind, rest)
		}
		again, err := decodePreface(kind, body)
		if err != nil || !bytes.Equal(again, body) {
			t.Errorf("message %d: %x was read as %x, %v", kind, body, again, err)
		}
		for n := range len(body) {
			if _, err := decodePreface(kind, body[:n]); err == nil {
				t.Errorf("message %d: %d of %d bytes were enough", kind, n, len(body))
			}
		}
	}
}

func TestReadMessageRefuses(t *testing.T) {
	long := binary.BigEndian.AppendUint16(append([]byte(magic), byte(msgHello)), maxMessage+1)
	for name, test := range map[string]struct {
		bytes []byte
		want  error
	}{
		"nothing":        {nil, io.EOF},
		"half a header":  {[]byte(magic), io.ErrUnexpectedEOF},
		"an SSH client":  {[]byte("SSH-2.0-OpenSSH_9.2\r\n"), errPreface},
		"unknown kind":   {encode(msgLimit, nil), errPreface},
		"a long message": {long, errPreface},
		"a short body":   {encode(msgHello, make([]byte, 5))[:9], io.ErrUnexpectedEOF},
	} {
		if _, _, err := readMessage(bytes.NewReader(test.bytes)); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func FuzzPreface(f *testing.F) {
	for kind, body := range prefaces() {
		f.Add(encode(kind, body))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, body, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := decodePreface(kind, body)
		if err != nil {
			return
		}
		// A newer hello may be longer, and its flags have bits to spare.
		if kind == msgHello || kind == msgRefused {
			return
		}
		if !bytes.Equal(again, body) {
			t.Errorf("message %d: %x was read as %x", kind, body, again)
		}
	})
}

// FuzzHandshake is what a stranger may send to an agent first.
func FuzzHandshake(f *testing.F) {
	for _, body := range prefaces() {
		f.Add(body)
	}
	signer := newSigner(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		s, message, err := welcomeClient(body, signer, DefaultWindow, DefaultBuffer)
		if err != nil {
			return
		}
		if s.peerBuffer < MinBuffer || s.peerBuffer > MaxBuffer || len(message) > prefaceHeader+maxMessage {
			t.Errorf("a session with a buffer of %d, a message of %d bytes", s.peerBuffer, len(message))
		}
	})
}
