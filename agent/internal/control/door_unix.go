//go:build linux || darwin

package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// doorSuffix ends the names of sockets that are ready. One that is about
	// to listen has another name: a client that found nobody behind it would
	// take it for a stale one.
	doorSuffix = ".sock"
	newSuffix  = ".new"
	// maxPath is the longest path of a socket that all platforms take, in
	// bytes: sun_path has 104 on macOS and 108 on Linux, with the zero.
	maxPath = 103
	// attempts is how often the folder is made: another agent that ends
	// removes it when it is empty.
	attempts = 10
)

// folders are XDG_RUNTIME_DIR's if there is one, and one in each temporary
// folder that this user's programs may know.
func folders() []string {
	var list []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		list = append(list, filepath.Join(dir, "converge"))
	}
	own := fmt.Sprintf("converge-%d", os.Geteuid())
	for _, dir := range []string{os.TempDir(), "/tmp"} {
		folder := filepath.Join(dir, own)
		if filepath.IsAbs(folder) && (len(list) == 0 || list[len(list)-1] != folder) {
			list = append(list, folder)
		}
	}
	return list
}

// private checks that a folder is this user's and nobody else's.
func private(folder string) error {
	info, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder: remove it", folder)
	case !ok || stat.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%s belongs to another user: set XDG_RUNTIME_DIR to a folder of your own", folder)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s is open to other users: run chmod 700 on it", folder)
	}
	return nil
}

// doorAddress of a socket is its path.
func doorAddress(path string) string { return path }

// open makes the socket in the first folder that will have it.
func open(dir string, env Env) (*door, error) {
	var errs []error
	for _, folder := range env.Folders {
		listener, path, err := listenIn(folder)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		remove, err := writePointer(dir, path)
		if err != nil {
			_ = listener.Close()
			_ = os.Remove(path)
			return nil, err
		}
		return &door{
			accept: func() (net.Conn, error) {
				conn, err := listener.AcceptUnix()
				if err != nil {
					return nil, err
				}
				if !mayPass(conn) {
					conn.Close()
					return nil, errStranger
				}
				return conn, nil
			},
			close: func() {
				_ = listener.Close()
				_ = os.Remove(path)
				remove()
				_ = os.Remove(folder) // fails while others are in it
			},
		}, nil
	}
	return nil, errors.Join(errs...)
}

// listenIn makes a socket in a folder, and removes stale ones.
func listenIn(folder string) (*net.UnixListener, string, error) {
	name := strings.ToLower(rand.Text()[:16])
	early, path := filepath.Join(folder, name+newSuffix), filepath.Join(folder, name+doorSuffix)
	if len(path) > maxPath {
		return nil, "", fmt.Errorf("the path %s is longer than %d bytes: set XDG_RUNTIME_DIR to a shorter one", path, maxPath)
	}
	var listener *net.UnixListener
	for attempt := 1; ; attempt++ {
		// Its parent is somebody else's to make.
		err := os.Mkdir(folder, 0o700)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, "", err
		}
		if err := private(folder); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, "", err
		}
		listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: early, Net: "unix"})
		if err == nil {
			break
		}
		if attempt == attempts || !errors.Is(err, os.ErrNotExist) {
			return nil, "", err
		}
	}
	sweep(folder)
	listener.SetUnlinkOnClose(false) // the name is about to change
	err := os.Chmod(early, 0o600)
	if err == nil {
		err = os.Rename(early, path)
	}
	if err != nil {
		_ = listener.Close()
		_ = os.Remove(early)
		return nil, "", err
	}
	return listener, path, nil
}

// sweep removes the sockets that killed agents have left behind.
func sweep(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, entry := range entries[:min(len(entries), maxDoors)] {
		if strings.HasSuffix(entry.Name(), doorSuffix) {
			removeStale(ctx, filepath.Join(folder, entry.Name()))
		}
	}
}

// abandoned reports whether an error of dial says that nobody listens.
func abandoned(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// dial connects to a socket and checks that it is this user's, or root's.
func dial(ctx context.Context, path string) (net.Conn, error) {
	if len(path) > maxPath || !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%q is no path of a socket", path)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	// Root may talk to anybody's.
	if os.Geteuid() != 0 && !mayPass(conn.(*net.UnixConn)) {
		conn.Close()
		return nil, errStranger
	}
	return conn, nil
}

// mayPass reports whether the peer is this user or root.
func mayPass(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	uid, failed := -1, error(nil)
	if err := raw.Control(func(fd uintptr) { uid, failed = peer(int(fd)) }); err != nil || failed != nil {
		return false
	}
	return admits(uid, os.Geteuid())
}

// admits is the rule: oneself and root.
func admits(uid, me int) bool { return uid == 0 || uid == me }
