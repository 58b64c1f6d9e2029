package cmdline

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestLogger(t *testing.T) {
	for _, test := range []struct {
		level string
		want  string
	}{
		{"debug", "debug info warn error"},
		{"info", "info warn error"},
		{"warn", "warn error"},
		{"error", "error"},
	} {
		in := try(t, "--log-level", test.level).in
		var stderr bytes.Buffer
		in.Stderr = &stderr
		log, err := Logger(in)
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("debug")
		log.Info("info")
		log.Warn("warn")
		log.Error("error")
		var got []string
		for line := range strings.Lines(stderr.String()) {
			_, message, _ := strings.Cut(strings.TrimSpace(line), "msg=")
			got = append(got, message)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: logged %q", test.level, got)
		}
	}
}

func TestLogFormat(t *testing.T) {
	in := try(t, "--log-format=json").in
	var stderr bytes.Buffer
	in.Stderr = &stderr
	log, err := Logger(in)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hello", "n", 1)
	var entry struct {
		Msg string
		N   int
	}
	if err := json.Unmarshal(stderr.Bytes(), &entry); err != nil || entry.Msg != "hello" || entry.N != 1 {
		t.Errorf("%q: %v", &stderr, err)
	}
	for _, args := range [][]string{{"--log-format", "xml"}, {"--log-level", "INFO"}} {
		if _, err := Logger(try(t, args...).in); err == nil {
			t.Errorf("%q was accepted", args)
		} else if _, ok := err.(*usageError); !ok {
			t.Errorf("%q: not a usage error: %v", args, err)
		}
	}
}
