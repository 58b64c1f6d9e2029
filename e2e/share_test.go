package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// other makes the line for another subsystem of the printed one.
func other(ssh, subsystem string) string {
	return "ssh -t -s" + strings.TrimPrefix(ssh, "ssh") + " " + subsystem
}

// TestSharedShell: a second engineer types in the first one's shell, a third
// watches; all see a full-screen program, who comes and goes, and the end; and
// asciinema shows it once more.
func TestSharedShell(t *testing.T) {
	t.Setenv("HOME", t.TempDir()) // no startup files
	s := startServer(t)
	id := newIdentity(t)
	dir := filepath.Join(t.TempDir(), "recordings")
	a := startAgent(t, s, id, "--record", dir)
	owner := newScreen(t, "100", "30")
	owner.typeLine(a.ssh)
	owner.waitFor(`This shell is recorded`)
	owner.typeLine("PS1='ow''ner> '; clear")
	owner.waitFor(`(?m)^owner> $`)

	joiner := newScreen(t, "90", "24")
	joiner.typeLine("PS1='ou''tside> '; clear")
	joiner.waitFor(`(?m)^outside> $`)
	joiner.typeLine(other(a.ssh, "converge-join"))
	joiner.waitFor(`you type in shell 1 of abc from 127\.0\.0\.1`)
	joiner.waitFor(`(?m)^owner> $`)
	owner.waitFor(`converge: abc from 127\.0\.0\.1\S* joined this shell and types here too; the terminal is 90x24 now`)
	joiner.typeLine(`echo "by the joiner, in $(stty size)."`)
	for _, screen := range []*screen{owner, joiner} {
		screen.waitFor(`by the joiner, in 24 90\.`)
	}

	// A full-screen program, for one who comes when it is there. It looks right
	// in windows of one size.
	owner.tmux("resize-window", "-x", "90", "-y", "24")
	owner.typeLine(`clear; seq 100 | sed 's/^/line /' | less -P 'less is here'`)
	owner.waitFor(`(?m)^line 23\n+less is here`)
	watcher := newScreen(t, "90", "24")
	watcher.typeLine("PS1='ou''tside> '; clear")
	watcher.waitFor(`(?m)^outside> $`)
	watcher.typeLine(other(a.ssh, "converge-watch"))
	watcher.waitFor(`(?m)^line 22\nline 23\nconverge: you watch shell 1 of abc`)
	// The owner is told within the picture, which moves nowhere.
	owner.waitFor(`(?m)^line 22\nline 23\nconverge: abc from 127\.0\.0\.1\S* watches this shell`)
	joiner.tmux("send-keys", "G")
	for _, screen := range []*screen{owner, joiner, watcher} {
		screen.waitFor(`(?m)^line 100\n`)
	}
	// Keys of a watcher are ignored; q is theirs, and leaves their screen as
	// it was before.
	watcher.tmux("send-keys", "g")
	watcher.tmux("send-keys", "q")
	watcher.waitFor(`converge: you have left this shell`)
	watcher.waitFor(`(?m)^outside> $`)
	joiner.tmux("send-keys", "q")
	joiner.waitFor(`(?m)owner> $`)

	// ssh's own way to leave, and back again.
	joiner.tmux("send-keys", "Enter")
	joiner.tmux("send-keys", "-l", "~.")
	joiner.waitFor(`(?m)^outside> $`)
	owner.waitFor(`left this shell`)
	owner.tmux("resize-window", "-x", "100", "-y", "30")
	owner.typeLine(`echo "alone, in $(stty size)."`)
	owner.waitFor(`alone, in 30 100\.`)
	joiner.typeLine(other(a.ssh, "converge-join 1"))
	joiner.waitFor(`alone, in 30 100\.`)
	owner.typeLine("exit 3")
	joiner.waitFor(`converge: the shell has ended`)
	joiner.typeLine("echo status=$?.")
	joiner.waitFor(`status=3\.`)

	files, err := filepath.Glob(filepath.Join(dir, "*Z-abc-1.cast"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	viewer := newScreen(t, "100", "30")
	viewer.typeLine("LC_ALL=C.UTF-8 asciinema cat " + files[0])
	viewer.waitFor(`alone, in 30 100\.`)
	viewer.typeLine("clear; LC_ALL=C.UTF-8 asciinema play -i 0.01 " + files[0])
	viewer.waitFor(`alone, in 30 100\.`)
}

// TestSharedReason: at the end of the job everybody hears why, also over a
// full-screen program.
func TestSharedReason(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	owner, joiner := newScreen(t, "100", "30"), newScreen(t, "100", "30")
	owner.typeLine(a.ssh)
	owner.waitFor(`Welcome to this job`)
	owner.typeLine(`seq 100 | sed 's/^/line /' | less -P 'less is here'`)
	owner.waitFor(`less is here`)
	joiner.typeLine(other(a.ssh, "converge-join"))
	joiner.waitFor(`(?m)^line 28\nline 29\nconverge: you type in shell 1 of abc`)
	a.signal(syscall.SIGINT)
	for _, screen := range []*screen{owner, joiner} {
		screen.waitFor(`(?s)The session ended.*Connection to localhost closed`)
	}
}
