package pipe

import (
	"os"
	"strconv"
	"syscall"

	"example.com/converge/pkg/rawio"
)

// reopen opens a pipe once more, in nonblocking mode. It returns nil for what
// is no pipe, what belongs to another user, and where there is no /proc.
func reopen(f *os.File, flag int) rawio.ReadWriter {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	var again *os.File
	controlErr := raw.Control(func(fd uintptr) {
		again, err = os.OpenFile("/proc/self/fd/"+strconv.FormatUint(uint64(fd), 10), flag|syscall.O_NONBLOCK, 0)
	})
	if controlErr != nil || err != nil {
		return nil
	}
	return rawio.File(again)
}
