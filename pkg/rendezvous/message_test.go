package rendezvous

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// messages has one of each.
func messages() []Message {
	return []Message{
		{Hello: &Hello{Version: 3, MinVersion: 1, Key: make([]byte, 32), Software: "agent v1 <&>", Meta: map[string]string{"job": "test"}, Protocols: []string{"a.v2", "a.v1"}, Ticket: []byte{0, 1, 255}}},
		{Challenge: &Challenge{Version: 1, Nonce: NewNonce()}},
		{Proof: &Proof{Signature: make([]byte, 64)}},
		{Registered: &Registered{ID: "team/repo/job"}},
		{Registered: &Registered{ID: "job", Ticket: &Ticket{Value: []byte{1}, Renew: 150}}},
		{Refused: &Refused{Code: RefusedTaken, Text: "it is taken"}},
		{Dial: &Dial{Client: 1<<64 - 1, Token: "t", Remote: "192.0.2.1", Protocol: "a.v1", Session: "abcdefghijklm234"}},
		{DialFailed: &DialFailed{Client: 7, Text: "no"}},
		{Park: &Park{}},
		{Parking: &Parking{Client: 8, Token: "t"}},
		{Renew: &Renew{}},
		{Ticket: &Ticket{Value: make([]byte, MaxTicket), Renew: 1}},
		{Accepted: &Accepted{Client: 9}},
		{Status: &Status{State: "job-running", Users: 2, Expires: maxExpires}},
		{Bye: &Bye{}},
		{},
	}
}

func TestSendReceive(t *testing.T) {
	var buf bytes.Buffer
	for _, m := range messages() {
		if err := Send(&buf, m); err != nil {
			t.Fatal(err)
		}
	}
	r := iotest.OneByteReader(&buf)
	for _, want := range messages() {
		got, err := Receive(r)
		if err != nil {
			t.Fatal(err)
		}
		if want.Challenge != nil {
			want.Challenge.Nonce = got.Challenge.Nonce // random
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if _, err := Receive(r); err != io.EOF {
		t.Errorf("after the last message: %v, want io.EOF", err)
	}
}

// writes counts the calls of Write.
type writes int

func (w *writes) Write(p []byte) (int, error) { *w++; return len(p), nil }

func TestSendIsOneWrite(t *testing.T) {
	var w writes
	if err := Send(&w, messages()[0]); err != nil || w != 1 {
		t.Errorf("%d writes, %v", w, err)
	}
}

func TestSendErrors(t *testing.T) {
	var w writes
	err := Send(&w, Message{Bye: &Bye{Text: strings.Repeat("a", MaxMessage)}})
	if err == nil || w != 0 {
		t.Errorf("too long a message: %v, %d writes", err, w)
	}
	_, pipe := io.Pipe()
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Send(pipe, Message{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("closed pipe: %v, want io.ErrClosedPipe", err)
	}
}

func framed(body string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(len(body)))) + body
}

func TestReceiveErrors(t *testing.T) {
	for name, test := range map[string]struct {
		input string
		want  error
	}{
		"nothing":         {"", io.EOF},
		"half a length":   {"\x00", io.ErrUnexpectedEOF},
		"no body":         {"\x00\x02", io.ErrUnexpectedEOF},
		"half a body":     {"\x00\x02{", io.ErrUnexpectedEOF},
		"length 0":        {"\x00\x00", ErrMalformed},
		"length 16385":    {"\x40\x01" + strings.Repeat(" ", MaxMessage+1), ErrMalformed},
		"length 65535":    {"\xff\xff", ErrMalformed},
		"no JSON":         {framed("x"), ErrMalformed},
		"JSON array":      {framed("[]"), ErrMalformed},
		"two values":      {framed("{}{}"), ErrMalformed},
		"two messages":    {framed(`{"bye":{},"refused":{}}`), ErrMalformed},
		"bad base64":      {framed(`{"proof":{"signature":"*"}}`), ErrMalformed},
		"client too big":  {framed(`{"dial":{"client":18446744073709551616}}`), ErrMalformed},
		"client negative": {framed(`{"dial":{"client":-1}}`), ErrMalformed},
	} {
		if _, err := Receive(strings.NewReader(test.input)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	longest := `{"bye":{}}` + strings.Repeat(" ", MaxMessage-10)
	if m, err := Receive(strings.NewReader(framed(longest))); err != nil || m.Bye == nil {
		t.Errorf("the longest message: %+v, %v", m, err)
	}
}

func TestDecodeLimits(t *testing.T) {
	long := strings.Repeat("a", maxText+1)
	key := fmt.Sprintf(`"key":%q`, strings.Repeat("A", 43)+"=")
	ticket := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	meta := func(n int) string {
		var entries []string
		for i := range n {
			entries = append(entries, fmt.Sprintf(`"k%d":"v"`, i))
		}
		return `"meta":{` + strings.Join(entries, ",") + `}`
	}
	for input, sentence := range map[string]string{
		`{"dial":{"client":1,"session":"x"}}`:                 "no session's id",
		`{"dial":{"client":1,"session":"aaaaaaaaaaaaaaa\n"}}`: "no session's id",
		`{"status":{}}`:              "makes no sense",
		`{"status":{"state":"<b>"}}`: "makes no sense",
		`{"status":{"state":"` + strings.Repeat("a", 33) + `"}}`:                                                "makes no sense",
		`{"status":{"state":"active","users":-1}}`:                                                              "makes no sense",
		`{"status":{"state":"active","expires":-1}}`:                                                            "makes no sense",
		`{"status":{"state":"active","expires":253402300800}}`:                                                  "makes no sense",
		`{"hello":{"version":1,"min_version":1}}`:                                                               "key is not 32",
		`{"hello":{"version":1,"min_version":1,"key":"AAAA"}}`:                                                  "key is not 32",
		`{"hello":{"version":0,"min_version":0,` + key + `}}`:                                                   "no range",
		`{"hello":{"version":1,"min_version":2,` + key + `}}`:                                                   "no range",
		`{"hello":{"version":1,"min_version":-1,` + key + `}}`:                                                  "no range",
		`{"hello":{"version":1,"min_version":1,"software":"` + long + `",` + key + `}}`:                         "longer than",
		`{"hello":{"version":1,"min_version":1,` + meta(33) + `,` + key + `}}`:                                  "more than 32",
		`{"hello":{"version":1,"min_version":1,"meta":{"` + long + `":""},` + key + `}}`:                        "longer than",
		`{"hello":{"version":1,"min_version":1,"meta":{"a":"` + long + `"},` + key + `}}`:                       "longer than",
		`{"hello":{"version":1,"min_version":1,"protocols":["a b"],` + key + `}}`:                               "no name of a protocol",
		`{"hello":{"version":1,"min_version":1,"protocols":[""],` + key + `}}`:                                  "no name of a protocol",
		`{"hello":{"version":1,"min_version":1,"protocols":["` + long + `"],` + key + `}}`:                      "no name of a protocol",
		`{"hello":{"version":1,"min_version":1,"protocols":["1","2","3","4","5","6","7","8","9"],` + key + `}}`: "more than 8",
		`{"hello":{"version":1,"min_version":1,"ticket":"` + ticket(513) + `",` + key + `}}`:                    "longer than 512",
		`{"registered":{"id":"x","ticket":{"value":"` + ticket(513) + `","renew":1}}}`:                          "1 to 512",
		`{"registered":{"id":"x","ticket":{"renew":1}}}`:                                                        "1 to 512",
		`{"ticket":{}}`:                              "1 to 512",
		`{"ticket":{"value":"AAAA"}}`:                "after 0 seconds",
		`{"ticket":{"value":"AAAA","renew":-1}}`:     "after -1 seconds",
		`{"ticket":{"value":"AAAA","renew":86401}}`:  "after 86401 seconds",
		`{"challenge":{"version":1,"nonce":"AAAA"}}`: "nonce is not 32",
		`{"proof":{"signature":"AAAA"}}`:             "signature is not 64",
		`{"registered":{"id":"../x"}}`:               "invalid id",
		`{"registered":{}}`:                          "invalid id",
		`{"refused":{"code":"` + long + `"}}`:        "longer than",
		`{"refused":{"text":"` + long + `"}}`:        "longer than",
		`{"dial":{"token":"` + long + `"}}`:          "longer than",
		`{"dial":{"protocol":"` + long + `"}}`:       "longer than",
		`{"dial":{"remote":"` + long + `"}}`:         "longer than",
		`{"dial_failed":{"text":"` + long + `"}}`:    "longer than",
		`{"bye":{"text":"` + long + `"}}`:            "longer than",
	} {
		_, err := Decode([]byte(input))
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), sentence) {
			t.Errorf("%.60s: %v, want %q", input, err, sentence)
		}
	}
	for _, input := range []string{
		`{"hello":{"version":1,"min_version":1,` + meta(32) + `,` + key + `}}`,
		`{"hello":{"version":1,"min_version":1,"ticket":"` + ticket(512) + `",` + key + `}}`,
		`{"ticket":{"value":"AAAA","renew":86400}}`,
		`{"later":{"a":[1,2,{}]}}`,
		`{"bye":{"text":"x","later":1}}`,
		`null`,
	} {
		if _, err := Decode([]byte(input)); err != nil {
			t.Errorf("%.60s: %v", input, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := Decode(body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v is not ErrMalformed", err)
			}
			return
		}
		// What was accepted can be sent on and means the same.
		var buf bytes.Buffer
		if err := Send(&buf, m); err != nil {
			if len(body) <= MaxMessage/6 { // escapes make six bytes of one at most
				t.Fatal(err)
			}
			return
		}
		again, err := Receive(&buf)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		first, second := new(bytes.Buffer), new(bytes.Buffer)
		if err := errors.Join(Send(first, m), Send(second, again)); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("%q became %q, %v", first, second, err)
		}
	})
}

func FuzzReceive(f *testing.F) {
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		for {
			before := r.Len()
			got, err := Receive(r)
			used := before - r.Len()
			cut, n, cutErr := Cut(stream[len(stream)-before:])
			if err == nil {
				if used > MaxMessage+2 {
					t.Fatalf("one message took %d bytes", used)
				}
				if n != used || cutErr != nil || !reflect.DeepEqual(cut, got) {
					t.Fatalf("Receive took %d bytes, Cut %d: %v", used, n, cutErr)
				}
				continue
			}
			if errors.Is(err, ErrMalformed) != errors.Is(cutErr, ErrMalformed) || (cutErr == nil && n != 0) {
				t.Fatalf("Receive: %v, Cut: %d, %v", err, n, cutErr)
			}
			if err == io.EOF && before != 0 {
				t.Fatalf("io.EOF with %d bytes left", before)
			}
			if !errors.Is(err, ErrMalformed) && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("unexpected kind of error: %v", err)
			}
			return
		}
	})
}
