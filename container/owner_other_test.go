//go:build !linux

package container

import (
	"os"
	"strconv"
	"syscall"
	"testing"
)

// Only a process that is certainly not there is gone.
func TestProcessExists(t *testing.T) {
	if _, exists := processStart(strconv.Itoa(os.Getpid())); !exists {
		t.Error("this process is taken for gone")
	}
	if _, exists := processStart("2147483644"); exists {
		t.Error("a number that nobody has is taken for a process")
	}
	if isNoProcess(os.NewSyscallError("OpenProcess", syscall.EACCES)) || !isNoProcess(os.NewSyscallError("OpenProcess", syscall.Errno(87))) {
		t.Error("an error of permission is taken for none of a process, or the other way around")
	}
}
