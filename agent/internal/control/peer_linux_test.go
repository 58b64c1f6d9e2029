package control

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel says who is at the other end, whatever the modes of the files
// allow. As root this comes as another user, otherwise as the same.
func TestPeer(t *testing.T) {
	env := place(t)
	_, dir := serve(t, env, "a")
	path, err := readPointer(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Open what is closed.
	for file, mode := range map[string]os.FileMode{filepath.Dir(env.Folders[0]): 0o755, env.Folders[0]: 0o755, path: 0o666} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	uid := os.Geteuid()
	if uid == 0 {
		uid = 65534
	}
	answered := make(chan error)
	go func() {
		// This thread is another user's from now on, and ends with the
		// goroutine. The raw call concerns no other thread.
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			answered <- errno
			return
		}
		answered <- visit(path)
	}()
	err = <-answered
	if stranger := uid != os.Geteuid(); stranger != (err != nil) {
		t.Errorf("user %d at the door of %d: %v", uid, os.Geteuid(), err)
	}
	if err := visit(path); err != nil {
		t.Errorf("the user's own: %v", err)
	}
}

// visit asks for the status, by the thread that calls it.
func visit(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if err := send(conn, Request{Op: StatusOp}); err != nil {
		return err
	}
	var r Response
	return receive(conn, &r)
}
