package host

import (
	"os"

	"golang.org/x/sys/unix"
)

// awaitExit waits for the leader and reaps it: there is no dependable way to
// wait without. Its number could be given to another process before the
// session's others are looked for; numbers go round slowly enough.
func (p *process) awaitExit() { p.wait() }

// processes returns the numbers of all processes.
func processes() []int {
	all, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil
	}
	list := make([]int, 0, len(all))
	for i := range all {
		list = append(list, int(all[i].Proc.P_pid))
	}
	return list
}

// zombie reports whether a process has ended and is not reaped.
func zombie(pid int) bool {
	const szomb = 5 // SZOMB of <sys/proc.h>
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	return err == nil && info.Proc.P_stat == szomb
}

// pollable leaves the terminal as it is: kqueue does not know terminals well.
// The kernel revokes the terminal when its session leader ends, which ends a
// read.
func pollable(master *os.File) (*os.File, error) { return master, nil }
