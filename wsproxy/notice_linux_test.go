package main

import (
	"testing"

	"golang.org/x/sys/unix"

	"example.com/converge/wsproxy/internal/ptytest"
)

func TestTellTerminal(t *testing.T) {
	master, terminal := ptytest.Open(t)
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	state.Oflag &^= unix.OPOST // as ssh has it
	if err := unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETS, state); err != nil {
		t.Fatal(err)
	}
	tell(terminal, "text")
	expect(t, master, "\r\nwsproxy: text\r\n")
}
