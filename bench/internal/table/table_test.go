package table

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	tests := map[float64]string{
		0: "0.00", 0.0012: "0.0012", 0.01: "0.01", 0.256: "0.26", 1: "1.00", 9.994: "9.99",
		12.34: "12.3", 123.4: "123", 12345: "12345", -2.5: "-2.50", math.NaN(): "–",
	}
	for in, want := range tests {
		if got := Number(in); got != want {
			t.Errorf("Number(%v) = %q, want %q", in, got, want)
		}
	}
}

func TestMarkdown(t *testing.T) {
	s := New("speed", "Speed", "MiB/s.", "base", "get", "put")
	for _, v := range []float64{100, 200, 300} {
		s.Add("base", "get", v)
		s.Add("ours", "get", v*1.5)
	}
	s.Add("base", "put", 50)
	s.Row("idle")
	s.Fail("broken", errors.New("it did not start"))
	s.Fail("broken", errors.New("second reason"))
	var b strings.Builder
	if err := s.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	want := `### Speed

MiB/s.

| peer | get | put |
|---|---|---|
| base | 200 (100–300) | 50.0 |
| ours | 300 (150–450) **1.50×** | – |
| idle | – | – |
| broken | – | – |

broken failed: it did not start

`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	if got := s.Failures(); len(got) != 1 || got[0] != "Speed, broken: it did not start" {
		t.Errorf("Failures() = %q", got)
	}
	if !s.Failed("broken") || s.Failed("ours") {
		t.Error("Failed tells the wrong rows")
	}
}

func TestNoBaseNoRatio(t *testing.T) {
	s := New("k", "T", "", "", "a")
	s.Add("x", "a", 1)
	s.Add("y", "a", 2)
	var b strings.Builder
	if err := s.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "×") {
		t.Errorf("a ratio without a base:\n%s", b.String())
	}
	if got := s.Ratio("y", "x", "a"); got != 2 {
		t.Errorf("Ratio = %v, want 2", got)
	}
}

func TestUnknownColumn(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an unknown column was taken")
		}
	}()
	New("k", "T", "", "", "a").Add("x", "b", 1)
}

func TestJSON(t *testing.T) {
	s := New("k", "T", "", "x", "a")
	s.Add("x", "a", 1)
	s.Add("x", "a", 2)
	text, err := json.Marshal([]*Sheet{s})
	if err != nil {
		t.Fatal(err)
	}
	var back []struct {
		Key     string
		Samples map[string]map[string][]float64
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if len(back) != 1 || back[0].Key != "k" || len(back[0].Samples["x"]["a"]) != 2 {
		t.Errorf("came back as %+v from %s", back, text)
	}
}
