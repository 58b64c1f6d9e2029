//go:build linux

package asciicast

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// asciinema takes a recording for what it is: cat gives the output back, and
// play does in its time.
func TestAsciinema(t *testing.T) {
	dir := t.TempDir()
	shown := "first line\r\n\x1b[1mbold\x1b[m grün €\r\nlast line\r\n"
	r, err := Create(dir, "test.cast", Header{Cols: 80, Rows: 24, Start: start, Title: "test"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(shown) {
		r.Output([]byte(shown[i : i+1]))
	}
	r.Resize(100, 30)
	r.Mark("a mark")
	r.Close()
	for _, args := range [][]string{{"cat"}, {"play", "-i", "0.01"}, {"play", "-s", "100"}} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := exec.CommandContext(ctx, "asciinema", append(args, filepath.Join(dir, "test.cast"))...)
		cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8")
		// It wants a terminal, which it sets to raw.
		terminal, err := pty.Start(cmd)
		if err != nil {
			cancel()
			t.Fatalf("asciinema: %v", err)
		}
		out, _ := io.ReadAll(terminal) // an error is the terminal's end
		if err := cmd.Wait(); err != nil {
			t.Errorf("asciinema %q: %v\n%s", args, err, out)
		}
		terminal.Close()
		cancel()
		// Before it is raw, the terminal makes \r\n of \n.
		if !strings.Contains(strings.ReplaceAll(string(out), "\r\r\n", "\r\n"), shown) {
			t.Errorf("asciinema %q shows %q", args, out)
		}
	}
}
