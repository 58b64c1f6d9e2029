package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func frame(kind byte, data string) string {
	b := []byte{kind, 0, 0, 0}
	return string(binary.BigEndian.AppendUint32(b, uint32(len(data)))) + data
}

func TestDemux(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	in := frame(1, "a") + frame(2, "b") + frame(1, "") + frame(1, long) + frame(2, "c") + frame(0, "d")
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in)),
		"halves": iotest.HalfReader(strings.NewReader(in)), "with the end": iotest.DataErrReader(strings.NewReader(in)),
	} {
		var out, errs bytes.Buffer
		if err := Demux(r, &out, &errs); err != nil || out.String() != "a"+long+"d" || errs.String() != "bc" {
			t.Errorf("%s: %d bytes, %q, %v", name, out.Len(), errs.String(), err)
		}
	}
	for in, want := range map[string]string{
		frame(1, "abc")[:10]:           "unexpected EOF",
		frame(1, "abc")[:5]:            "unexpected EOF",
		"not framed at all":            "not framed",
		frame(3, "disk full"):          "disk full",
		"\x01\x00\x00\x01\x00\x00\x00": "unexpected EOF",
		// A length takes no memory.
		"\x01\x00\x00\x00\xff\xff\xff\xffabc": "unexpected EOF",
	} {
		if err := Demux(strings.NewReader(in), io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
	if err := Demux(strings.NewReader(frame(1, "abc")), failing{}, io.Discard); !errors.Is(err, errFailing) {
		t.Errorf("error %v", err)
	}
}

var errFailing = errors.New("failing")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFailing }

func FuzzDemux(f *testing.F) {
	f.Add([]byte(frame(1, "out")+frame(2, "err")), uint8(3))
	f.Add([]byte(frame(3, "no")), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, chunk uint8) {
		var out, errs, out2, errs2 bytes.Buffer
		err := Demux(bytes.NewReader(in), &out, &errs)
		err2 := Demux(&chunked{in, int(chunk%16) + 1}, &out2, &errs2)
		if (err == nil) != (err2 == nil) || !bytes.Equal(out.Bytes(), out2.Bytes()) || !bytes.Equal(errs.Bytes(), errs2.Bytes()) {
			t.Errorf("%q in chunks is another: %v, %v", in, err, err2)
		}
		if out.Len()+errs.Len() > len(in) {
			t.Errorf("%d bytes of %d", out.Len()+errs.Len(), len(in))
		}
	})
}

// chunked gives few bytes at a time.
type chunked struct {
	rest []byte
	n    int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest[:min(c.n, len(c.rest))])
	c.rest = c.rest[n:]
	return n, nil
}

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		have, want string
		yes        bool
	}{{"1.41", "1.40", true}, {"1.9", "1.40", false}, {"2.0", "1.44", true}, {"", "1.40", false}, {"1.44", "1.44", true}} {
		if atLeast(c.have, c.want) != c.yes {
			t.Errorf("%s at least %s: %v", c.have, c.want, !c.yes)
		}
	}
}
