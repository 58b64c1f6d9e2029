package pipe

import (
	"os"

	"golang.org/x/sys/unix"
)

func widen(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if size, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0); err == nil && size < Size {
			_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, Size)
		}
	})
}
