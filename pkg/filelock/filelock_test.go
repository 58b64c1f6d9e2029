package filelock_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	"example.com/converge/pkg/filelock"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := filelock.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := filelock.Try(path); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("a second lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := filelock.Try(path)
	if err != nil {
		t.Fatalf("after the end of the first: %v", err)
	}
	_ = again.Close()
	if _, err := filelock.Try(filepath.Join(path, "none")); err == nil || errors.Is(err, filelock.ErrLocked) {
		t.Errorf("a file that cannot be: %v", err)
	}
}

// waited reports whether somebody waits for a lock of this process, as far as that
// can be told: Linux does (proc_locks(5)).
func waited(t *testing.T) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/locks")
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(fmt.Sprintf(`-> FLOCK .* %d `, os.Getpid())).Match(text)
}

// TestWait shows that Lock waits: the second comes in only after the first.
func TestWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := filelock.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	unlocked, in := make(chan struct{}), make(chan error, 1)
	go func() {
		second, err := filelock.Lock(path)
		if err == nil {
			select {
			case <-unlocked:
			default:
				err = errors.New("it did not wait")
			}
			_ = second.Close()
		}
		in <- err
	}()
	for !waited(t) { // else it might come when there is nothing to wait for
		select {
		case err := <-in:
			t.Fatalf("it did not wait: %v", err)
		default:
			runtime.Gosched()
		}
	}
	close(unlocked)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-in; err != nil {
		t.Error(err)
	}
}
