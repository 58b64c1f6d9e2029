//go:build unix

package front

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestFileLimitIsRaised(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
	lowered := before
	lowered.Cur = min(before.Max, 256)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lowered); err != nil {
		t.Fatal(err)
	}
	got := FileLimit()
	var after unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &after); err != nil {
		t.Fatal(err)
	}
	if got != uint64(after.Cur) || after.Cur < before.Cur {
		t.Errorf("the limit was %d, is %d, and FileLimit says %d", before.Cur, after.Cur, got)
	}
}
