package container

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// procfs is where the kernel tells of processes.
var procfs = "/proc"

// self describes this process.
func self() owner {
	o := owner{pid: strconv.Itoa(os.Getpid())}
	if boot, err := os.ReadFile(procfs + "/sys/kernel/random/boot_id"); err == nil {
		o.machine = strings.TrimSpace(string(boot))
	}
	if o.machine == "" {
		o.machine, _ = os.Hostname()
	}
	o.space, _ = os.Readlink(procfs + "/self/ns/pid")
	o.start, _ = processStart(o.pid)
	return o
}

// processStart returns when a process started, in the kernel's own count.
func processStart(pid string) (start string, exists bool) {
	if _, err := strconv.ParseUint(pid, 10, 32); err != nil {
		return "", true // no process, and no reason to remove anything
	}
	stat, err := os.ReadFile(procfs + "/" + pid + "/stat")
	if os.IsNotExist(err) {
		// A /proc that hides the processes of other users (hidepid of proc(5)), or
		// is not there, knows less than the kernel.
		n, _ := strconv.Atoi(pid)
		return "", !errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
	}
	// proc(5): the name stands in brackets and may hold anything; the start is
	// the 20th field after it.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	if fields := strings.Fields(rest); err == nil && len(fields) > 19 {
		if fields[0] == "Z" || fields[0] == "X" {
			return "", false // it has ended, and nobody has taken notice
		}
		return fields[19], true
	}
	return "", true
}
