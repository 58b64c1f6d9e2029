package guest

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The modes are tested as processes, in module guest.
func TestRun(t *testing.T) {
	var said bytes.Buffer
	if code := Run("agent", []string{"unknown"}, os.Stdin, os.Stdout, &said); code != 1 || said.String() != "agent: invalid mode: unknown; try 'agent -h'\n" {
		t.Errorf("it exits with %d and says %q", code, &said)
	}
	said.Reset()
	if code := Run("agent", []string{"-h"}, os.Stdin, os.Stdout, &said); code != 0 || said.String() != Usage {
		t.Errorf("-h exits with %d and says %q", code, &said)
	}
}

func TestLog(t *testing.T) {
	var out strings.Builder
	l := &lines{name: "guest", w: &out}
	l.Debug("nothing")
	l.Info("a message", "plain", 5, "odd", "a b", "empty", "")
	l.Warn("worse", "error", os.ErrNotExist, "hostile", "x\n\x1b[31m")
	const want = "guest: INFO a message plain=5 odd=\"a b\" empty=\"\"\n" +
		"guest: WARN worse error=\"file does not exist\" hostile=\"x\\n\\x1b[31m\"\n"
	if out.String() != want {
		t.Errorf("it wrote\n%s, want\n%s", &out, want)
	}
}
