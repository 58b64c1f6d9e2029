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
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

const (
	// doorSuffix ends the names of the files that stand for pipes.
	doorSuffix = ".pipe"
	pipePrefix = `\\.\pipe\converge-`
	// pipeBuffer is what either direction holds in bytes.
	pipeBuffer = 4 << 10
	// busyPause is the time between two attempts at a pipe all of whose
	// instances are taken.
	busyPause = 20 * time.Millisecond
)

// folders is one in the user's local application data, which the system keeps
// from other users.
func folders() []string {
	base, err := os.UserCacheDir() // %LocalAppData%
	if err != nil {
		return nil
	}
	return []string{filepath.Join(base, "converge")}
}

// private leaves it to the access list that the folder inherits: the files in it
// only tell names, and dial checks whose pipe it is.
func private(folder string) error {
	_, err := os.Stat(folder)
	return err
}

// doorAddress turns the name of a file into that of its pipe.
func doorAddress(path string) string {
	return pipePrefix + strings.TrimSuffix(filepath.Base(path), doorSuffix)
}

// open makes a pipe that only this user may open, and the file that stands for
// it.
func open(dir string, env Env) (*door, error) {
	if len(env.Folders) == 0 {
		return nil, errors.New("there is no folder for the user's own data: set LocalAppData")
	}
	folder := env.Folders[0]
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	sweep(folder)
	path := filepath.Join(folder, strings.ToLower(rand.Text()[:16])+doorSuffix)
	p, err := newPipe(doorAddress(path))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		p.close()
		return nil, err
	}
	remove, err := writePointer(dir, doorAddress(path))
	if err != nil {
		p.close()
		_ = os.Remove(path)
		return nil, err
	}
	return &door{
		accept: p.accept,
		close: func() {
			p.close()
			_ = os.Remove(path)
			remove()
		},
	}, nil
}

// sweep removes the files of pipes that are no more.
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

// abandoned reports whether an error of dial says that there is no such pipe.
func abandoned(err error) bool { return errors.Is(err, windows.ERROR_FILE_NOT_FOUND) }

// user returns this process's user.
func user() (*windows.SID, error) {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("tell the user: %w", err)
	}
	return u.User.Sid, nil
}

// pipe is a listening named pipe.
type pipe struct {
	name   *uint16
	access *windows.SecurityAttributes
	stop   windows.Handle // an event
	mu     sync.Mutex     // held by accept
	next   windows.Handle // the instance that waits for a client
	closed bool
	once   sync.Once
}

func newPipe(name string) (*pipe, error) {
	sid, err := user()
	if err != nil {
		return nil, err
	}
	// The user alone, as owner too, also where an administrator's files
	// belong to the group.
	sddl := fmt.Sprintf("O:%[1]sD:P(A;;GA;;;%[1]s)", sid)
	descriptor, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return nil, fmt.Errorf("make an access list: %w", err)
	}
	p := &pipe{access: &windows.SecurityAttributes{SecurityDescriptor: descriptor}}
	p.access.Length = uint32(unsafe.Sizeof(*p.access))
	if p.name, err = windows.UTF16PtrFromString(name); err != nil {
		return nil, err
	}
	if p.stop, err = windows.CreateEvent(nil, 1, 0, nil); err != nil {
		return nil, err
	}
	// The first instance makes sure that the name is nobody else's.
	if p.next, err = p.instance(windows.FILE_FLAG_FIRST_PIPE_INSTANCE); err != nil {
		_ = windows.CloseHandle(p.stop)
		return nil, err
	}
	return p, nil
}

func (p *pipe) instance(flags uint32) (windows.Handle, error) {
	h, err := windows.CreateNamedPipe(p.name,
		windows.PIPE_ACCESS_DUPLEX|windows.FILE_FLAG_OVERLAPPED|flags,
		windows.PIPE_TYPE_BYTE|windows.PIPE_REJECT_REMOTE_CLIENTS,
		windows.PIPE_UNLIMITED_INSTANCES, pipeBuffer, pipeBuffer, 0, p.access)
	if err != nil {
		return 0, fmt.Errorf("make a pipe: %w", err)
	}
	return h, nil
}

// accept waits for a client.
func (p *pipe) accept() (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	if p.next == 0 {
		h, err := p.instance(0)
		if err != nil {
			return nil, err
		}
		p.next = h
	}
	if err := p.connect(p.next); err != nil {
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		// Such as a client that has gone again. The instance stays: the name
		// goes with the last one.
		_ = windows.DisconnectNamedPipe(p.next)
		return nil, err
	}
	h := p.next
	// There is another instance before this one is served.
	p.next, _ = p.instance(0)
	return newPipeConn(h), nil
}

// connect waits until a client has come to an instance, or close was called.
func (p *pipe) connect(h windows.Handle) error {
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(event)
	overlapped := windows.Overlapped{HEvent: event}
	switch err := windows.ConnectNamedPipe(h, &overlapped); {
	case err == nil, errors.Is(err, windows.ERROR_PIPE_CONNECTED):
		return nil
	case !errors.Is(err, windows.ERROR_IO_PENDING):
		return fmt.Errorf("wait for a client: %w", err)
	}
	which, err := windows.WaitForMultipleObjects([]windows.Handle{p.stop, event}, false, windows.INFINITE)
	var n uint32
	if err != nil || which == windows.WAIT_OBJECT_0 {
		_ = windows.CancelIoEx(h, &overlapped)
		// The system writes to overlapped until the operation is over.
		_ = windows.GetOverlappedResult(h, &overlapped, &n, true)
		return net.ErrClosed
	}
	return windows.GetOverlappedResult(h, &overlapped, &n, false)
}

func (p *pipe) close() {
	p.once.Do(func() {
		_ = windows.SetEvent(p.stop)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.closed = true
		if p.next != 0 {
			_ = windows.CloseHandle(p.next)
		}
		_ = windows.CloseHandle(p.stop)
	})
}

// dial opens a pipe and checks that it is this user's.
func dial(ctx context.Context, address string) (net.Conn, error) {
	if !strings.HasPrefix(address, pipePrefix) {
		return nil, fmt.Errorf("%q is no name of a pipe", address)
	}
	name, err := windows.UTF16PtrFromString(address)
	if err != nil {
		return nil, err
	}
	pause := time.NewTicker(busyPause)
	defer pause.Stop()
	for {
		// Whoever made the pipe may learn who we are, and not act as us.
		h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING,
			windows.FILE_FLAG_OVERLAPPED|windows.SECURITY_SQOS_PRESENT|windows.SECURITY_IDENTIFICATION, 0)
		if err == nil {
			if err := ours(h); err != nil {
				_ = windows.CloseHandle(h)
				return nil, err
			}
			return newPipeConn(h), nil
		}
		if !errors.Is(err, windows.ERROR_PIPE_BUSY) {
			return nil, fmt.Errorf("open a pipe: %w", err)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("open a pipe: %w", context.Cause(ctx))
		}
	}
}

// ours checks the owner of a pipe.
func ours(h windows.Handle) error {
	sid, err := user()
	if err != nil {
		return err
	}
	descriptor, err := windows.GetSecurityInfo(h, windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("tell the owner of a pipe: %w", err)
	}
	owner, _, err := descriptor.Owner()
	if err != nil {
		return fmt.Errorf("tell the owner of a pipe: %w", err)
	}
	if !owner.Equals(sid) {
		return errStranger
	}
	return nil
}

// pipeConn is one end of a pipe as a net.Conn. The file knows deadlines, since
// its handle is for overlapped operations.
type pipeConn struct{ *os.File }

func newPipeConn(h windows.Handle) net.Conn { return pipeConn{os.NewFile(uintptr(h), "pipe")} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func (pipeConn) LocalAddr() net.Addr  { return pipeAddr{} }
func (pipeConn) RemoteAddr() net.Addr { return pipeAddr{} }
