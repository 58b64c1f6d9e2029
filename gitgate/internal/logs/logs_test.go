package logs_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/logs"
)

func TestLogs(t *testing.T) {
	var out bytes.Buffer
	l, err := logs.Open(config.Logging{Output: "stdout", Timestamp: true}, &out)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := l.Logger().With("a", 1).WithGroup("g")
	line := func(want, not string) {
		t.Helper()
		log.Debug("fine")
		log.Info("said", "b", 2)
		if got := out.String(); !strings.Contains(got, want) || not != "" && strings.Contains(got, not) {
			t.Errorf("%q, want %q and not %q", got, want, not)
		}
		out.Reset()
	}
	line("level=INFO msg=said a=1 g.b=2", "fine")
	use := func(c config.Logging) {
		t.Helper()
		if err := l.Use(c); err != nil {
			t.Fatal(err)
		}
	}
	use(config.Logging{Level: slog.LevelDebug})
	line("level=DEBUG msg=fine a=1\nlevel=INFO msg=said a=1 g.b=2\n", "time=")
	use(config.Logging{JSON: true})
	line(`{"level":"INFO","msg":"said","a":1,"g":{"b":2}}`, "time")

	// A file, that is rotated.
	file := filepath.Join(t.TempDir(), "log")
	use(config.Logging{Output: file})
	line("", "said")
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	use(config.Logging{Output: file})
	log.Info("next")
	if err := l.Use(config.Logging{Output: filepath.Join(file, "none")}); err == nil {
		t.Error("no error")
	}
	log.Info("still")
	for name, want := range map[string]string{file + ".1": "said", file: "still"} {
		text, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}
