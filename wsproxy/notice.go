package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/resume"
)

// notices returns what tells the user that the session stalls and that it goes
// on, one line each; nil where nobody wants to know.
func notices(in *cmdline.Invocation) func(resume.Notice) {
	if in.Bool("quiet") {
		return nil
	}
	return func(n resume.Notice) {
		if n.State == resume.Stalled {
			tell(in.Stderr, fmt.Sprintf("connection lost, reconnecting for up to %s", n.Window))
			return
		}
		tell(in.Stderr, fmt.Sprintf("connected again after %s", time.Since(n.Since).Round(time.Second)))
	}
}

// tell writes one line. On a terminal the cursor may be anywhere, and ssh may
// have it in raw mode, in which a line feed does not return it.
func tell(w io.Writer, text string) {
	begin, end := "", "\n"
	if isTerminal(w) {
		begin, end = "\r\n", "\r\n"
	}
	_, _ = io.WriteString(w, begin+"wsproxy: "+text+end)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
