//go:build linux

package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of the times in /proc/PID/stat: the kernel's USER_HZ, which
// is 100 on all of Linux's platforms that Go supports.
const tick = 10 * time.Millisecond

// stat is the part of /proc/PID/stat that matters, proc(5).
type stat struct {
	pid, parent int
	// reaped is the CPU time of descendants that were waited for.
	reaped time.Duration
	zombie bool
}

// parseStat reads the text of a /proc/PID/stat. The name of the program is in
// brackets and may hold anything.
func parseStat(text []byte) (stat, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("cannot read a process's state: no name in %q", text)
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("cannot read a process's state: %d fields", len(fields))
	}
	var s stat
	var err error
	number := func(field string) int {
		n, bad := strconv.Atoi(field)
		if bad != nil && err == nil {
			err = fmt.Errorf("cannot read a process's state: %w", bad)
		}
		return n
	}
	s.pid = number(strings.TrimSpace(string(text[:open])))
	s.zombie = fields[0] == "Z"
	s.parent = number(fields[1])
	s.reaped = time.Duration(number(fields[13])+number(fields[14])) * tick
	return s, err
}

// tree lists a process and its living descendants.
func (p *Process) tree() ([]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	children := map[int][]stat{}
	var found []stat
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		s, err := parseStat(text)
		if err != nil {
			return nil, err
		}
		children[s.parent] = append(children[s.parent], s)
		if s.pid == p.Pid() && !s.zombie {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: %w: %s", p.Name, ErrEnded, lastLines(p.Output()))
	}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	return found, nil
}

// CPU is the CPU time, of user and system, of the process and all its
// descendants, those that have ended included.
func (p *Process) CPU() (time.Duration, error) {
	all, err := p.tree()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, s := range all {
		sum += s.reaped
		// The process's CPU clock, clock_getcpuclockid(3): in nanoseconds,
		// where stat counts ticks.
		var now unix.Timespec
		if err := unix.ClockGettime(int32(^s.pid<<3|2), &now); err == nil {
			sum += time.Duration(now.Nano())
		}
	}
	return sum, nil
}

// RSS is the resident memory of the process and its descendants in bytes.
// Pages that they share are counted for each in parts (Pss), so that a forked
// server is not counted twice.
func (p *Process) RSS() (int64, error) {
	all, err := p.tree()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, s := range all {
		pss, err := Pss(s.pid)
		if errors.Is(err, ErrEnded) {
			continue
		}
		if err != nil {
			return 0, err
		}
		sum += pss
	}
	return sum, nil
}

// Pss is the resident memory of one process alone, in bytes, as RSS counts it.
// The error is ErrEnded if there is none.
func Pss(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, ErrEnded
	}
	pss, err := field(text, "Pss:")
	return pss << 10, err
}

// Child finds a child of a process by the name of its program.
func Child(parent int, name string) (pid int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // of a thread that has ended, nothing
		for _, word := range strings.Fields(string(text)) {
			comm, _ := os.ReadFile("/proc/" + word + "/comm")
			if strings.TrimSpace(string(comm)) == name {
				return strconv.Atoi(word)
			}
		}
	}
	return 0, fmt.Errorf("process %d has no child %s: %w", parent, name, ErrEnded)
}

// Kernel is the memory that the kernel of this machine holds for itself, in
// bytes: what cannot be reclaimed of its slabs, page tables, stacks, and the
// socket buffers. It is the whole machine's, whoever uses it.
func Kernel() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, name := range []string{"SUnreclaim:", "KernelStack:", "PageTables:"} {
		n, err := field(text, name)
		if err != nil {
			return 0, err
		}
		sum += n << 10
	}
	if text, err = os.ReadFile("/proc/net/sockstat"); err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("TCP:")); ok {
			pages, err := field(rest, "mem")
			if err != nil {
				return 0, err
			}
			sum += pages * int64(os.Getpagesize())
		}
	}
	return sum, nil
}

// field finds the number after a name in one of /proc's texts.
func field(text []byte, name string) (int64, error) {
	fields := strings.Fields(string(text))
	for i, f := range fields {
		if f == name && i+1 < len(fields) {
			return strconv.ParseInt(fields[i+1], 10, 64)
		}
	}
	return 0, fmt.Errorf("the kernel does not tell %s", name)
}

// Quiet waits until a process has no more descendants than n, so that those
// which have just finished a session are counted as ended. It gives up without
// an error: the figures are then those of the moment.
func (p *Process) Quiet(ctx context.Context, n int) {
	poll(ctx, 2*time.Millisecond, 2*time.Second, func() bool {
		all, err := p.tree()
		return err != nil || len(all) <= n+1
	})
}

// Descendants is how many living descendants the process has.
func (p *Process) Descendants() (int, error) {
	all, err := p.tree()
	return len(all) - 1, err
}

// Settled returns a figure once it has changed by less than one in a hundred
// for a second, or after ten seconds whatever it is.
func Settled(ctx context.Context, figure func() (int64, error)) (int64, error) {
	const same = 5
	last, err := figure()
	if err != nil {
		return 0, err
	}
	count := 0
	poll(ctx, 200*time.Millisecond, 10*time.Second, func() bool {
		var now int64
		if now, err = figure(); err != nil {
			return true
		}
		count++
		if diff := now - last; diff > last/100 || -diff > last/100 {
			count = 0
		}
		last = now
		return count >= same
	})
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return last, err
}

// poll asks a question again and again until the answer is yes.
func poll(ctx context.Context, every, atMost time.Duration, yes func() bool) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for !yes() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
