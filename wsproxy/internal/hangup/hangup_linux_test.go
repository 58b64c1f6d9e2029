package hangup

import (
	"testing"

	"example.com/converge/wsproxy/internal/ptytest"
)

func TestTerminal(t *testing.T) {
	master, terminal := ptytest.Open(t)
	wantLost(t, terminal, func() { _ = master.Close() })
}
