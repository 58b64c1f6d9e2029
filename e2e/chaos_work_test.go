//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/converge/e2e/internal/fault"
	"example.com/converge/pkg/watchtest"
)

// worker makes one transfer after the other, through a gate of its own.
type worker struct {
	c      *chaos
	name   string
	number uint64
	rng    *rand.Rand
	gate   *fault.Gate
	config string   // of ssh
	proxy  *process // its tcptows, if it has one
	stderr *watchtest.Output
	// work makes one transfer and returns how many bytes it has compared.
	work func(w *worker, n uint64) (int64, error)
	// paced is whether faults wait for its progress.
	paced     bool
	transfers int
	idle      atomic.Bool

	moved  atomic.Int64           // bytes or lines so far, seen at this end
	target atomic.Pointer[string] // a file whose growth is progress
}

// hire makes the workers.
func (c *chaos) hire() {
	c.t.Helper()
	for i, job := range []struct {
		name    string
		tcptows bool
		work    func(w *worker, n uint64) (int64, error)
	}{
		{"sftp", false, (*worker).sftp},
		{"sftp by tcptows", true, (*worker).sftp},
		{"ssh cat both ways", false, (*worker).there},
		{"ssh cat one way by tcptows", true, (*worker).oneWay},
		{"scp", false, (*worker).scp},
		{"rsync", false, (*worker).rsync},
		{"shell", false, (*worker).shell},
		{"shell by tcptows", true, (*worker).shell},
		{"shell in a hole", false, (*worker).shell},
	} {
		w := &worker{c: c, name: job.name, number: uint64(i + 1), work: job.work, stderr: &watchtest.Output{}, gate: c.gate()}
		w.rng = c.random(w.number)
		w.paced = i != 8
		c.workers = append(c.workers, w)
		url := strings.Replace(c.agent.url, c.agentGate.Address(), w.gate.Address(), 1)
		way := "ProxyCommand '" + tool("wsproxy") + "' '" + url + "'"
		if job.tcptows {
			w.proxy = c.start(tool("tcptows"), "0", url)
			way = "Port " + w.proxy.out.Await(c.t, `listening on 127\.0\.0\.1:(\d+)`, 1)[1]
		}
		w.config = filepath.Join(c.dir, fmt.Sprintf("config%d", i))
		// Stock ssh gives up after three intervals without an answer.
		text := strings.Join([]string{"Host chaos", "HostName localhost", "User abc", way,
			"IdentityFile " + c.id.file, "IdentitiesOnly yes", "BatchMode yes", "LogLevel ERROR",
			"StrictHostKeyChecking no", "UserKnownHostsFile /dev/null",
			"ServerAliveInterval 10", "ServerAliveCountMax 36", ""}, "\n")
		if err := os.WriteFile(w.config, []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
}

// progress changes when the worker gets on.
func (w *worker) progress() int64 {
	sum := w.moved.Load()
	if name := w.target.Load(); name != nil {
		if info, err := os.Stat(*name); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// run makes transfers until the run is over.
func (w *worker) run() {
	defer w.idle.Store(true)
	for n := uint64(0); !w.c.stop.Load() && w.c.ctx.Err() == nil; n++ {
		opened := w.gate.Counts.Opened.Load()
		bytes, err := w.work(w, n)
		w.target.Store(nil)
		switch {
		case w.c.ctx.Err() != nil:
		case strings.Contains(w.stderr.String(), "DATA RACE"):
			w.c.lose(fmt.Errorf("%s: a client has a data race", w.name))
		case err == nil:
			w.transfers++
			w.moved.Add(1)
			w.c.transfers.Add(1)
			w.c.bytes.Add(bytes)
		case w.gate.Counts.Opened.Load() == opened:
			// The first connection of a session is not tried again: its user
			// is told. A session is what the client has begun to use. Who never
			// begins makes no progress, which the schedule waits for.
			w.c.unbegun.Add(1)
			w.c.moment(w.rng, time.Second)
		default:
			w.c.lose(fmt.Errorf("%s: transfer %d was lost: %w", w.name, n, err))
		}
	}
}

// data is the n-th pseudo-random text of the worker.
func (w *worker) data(n uint64) io.Reader {
	var seed [32]byte
	for i, v := range []uint64{w.c.seed, w.number, n} {
		for b := range 8 {
			seed[8*i+b] = byte(v >> (8 * b))
		}
	}
	return rand.NewChaCha8(seed)
}

// amount is how many bytes the next transfer has, and rate how many a second
// at most, 0 for any number: some live long, some are fast.
func (w *worker) amount() (size, rate int64) {
	most := int64(4 << 20)
	if w.c.soak > 0 {
		most = 32 << 20
	}
	size, rate = 1+w.rng.Int64N(most), 0
	if w.rng.IntN(2) == 0 {
		rate = max(size/4, 256<<10)
	}
	return size, rate
}

// files makes the source of a transfer, and names its target.
func (w *worker) files(n uint64, size int64) (source, target string, sum [sha256.Size]byte, err error) {
	source = filepath.Join(w.c.dir, fmt.Sprintf("source%d", w.number))
	target = filepath.Join(w.c.dir, fmt.Sprintf("target%d", w.number))
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", "", sum, err
	}
	f, err := os.Create(source)
	if err != nil {
		return "", "", sum, err
	}
	h := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, h), w.data(n), size)
	w.target.Store(&target)
	return source, target, [sha256.Size]byte(h.Sum(nil)), errors.Join(err, f.Close())
}

// same compares a file with what it must be.
func same(name string, size int64, sum [sha256.Size]byte) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err == nil && (n != size || [sha256.Size]byte(h.Sum(nil)) != sum) {
		err = fmt.Errorf("%d bytes arrived, not the %d that were sent, or others", n, size)
	}
	return err
}

// command is a client of this worker's, which ends with the run.
func (w *worker) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(w.c.ctx, name, args...)
	cmd.Stderr = w.stderr
	// Its ProxyCommand is in its group, and goes with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = patience
	return cmd
}

// transfer runs a client that copies the source to the target, one way or the
// other.
func (w *worker) transfer(n uint64, client func(source, target string, up bool, rate int64) *exec.Cmd) (int64, error) {
	size, rate := w.amount()
	up := w.rng.IntN(2) == 0
	source, target, sum, err := w.files(n, size)
	if err != nil {
		return 0, err
	}
	cmd := client(source, target, up, rate)
	fmt.Fprintf(w.stderr, "%v: %d bytes, up %v, at most %d a second: %s\n", time.Now(), size, up, rate, cmd)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", cmd, err, &out)
	}
	return size, same(target, size, sum)
}

func (w *worker) sftp(n uint64) (int64, error) {
	return w.transfer(n, func(source, target string, up bool, rate int64) *exec.Cmd {
		verb := "get"
		if up {
			verb = "put"
		}
		cmd := w.command("sftp", append(limited("-l", rate*8/1000), "-q", "-b", "-", "-F", w.config, "chaos")...)
		cmd.Stdin = strings.NewReader(fmt.Sprintf("%s %s %s\n", verb, source, target))
		return cmd
	})
}

func (w *worker) scp(n uint64) (int64, error) {
	protocol := []string{"-O", "-s"}[w.rng.IntN(2)]
	return w.transfer(n, func(source, target string, up bool, rate int64) *exec.Cmd {
		if up {
			target = "chaos:" + target
		} else {
			source = "chaos:" + source
		}
		return w.command("scp", append(limited("-l", rate*8/1000), "-q", protocol, "-F", w.config, source, target)...)
	})
}

func (w *worker) rsync(n uint64) (int64, error) {
	return w.transfer(n, func(source, target string, up bool, rate int64) *exec.Cmd {
		if up {
			target = "chaos:" + target
		} else {
			source = "chaos:" + source
		}
		return w.command("rsync", append(limited("--bwlimit", rate/1000), "-q", "--inplace", "--whole-file", "-e", "ssh -F "+w.config, source, target)...)
	})
}

func limited(option string, rate int64) []string {
	if rate == 0 {
		return nil
	}
	return []string{option, strconv.FormatInt(rate, 10)}
}

// oneWay is ssh with cat, into a file or out of one.
func (w *worker) oneWay(n uint64) (int64, error) {
	size, rate := w.amount()
	source, target, sum, err := w.files(n, size)
	if err != nil {
		return 0, err
	}
	if w.rng.IntN(2) == 0 {
		w.target.Store(nil)
		return size, w.stream("cat "+source, nil, w.data(n), size, 0)
	}
	if err := w.stream("cat > "+target, w.data(n), nil, size, rate); err != nil {
		return 0, err
	}
	return size, same(target, size, sum)
}

// there is ssh with cat, there and back.
func (w *worker) there(n uint64) (int64, error) {
	size, rate := w.amount()
	return 2 * size, w.stream("cat", w.data(n), w.data(n), size, rate)
}

// stream runs a command that gets so many bytes of in, if there is one, and
// must say so many of want.
func (w *worker) stream(line string, in, want io.Reader, size, rate int64) error {
	cmd := w.command("ssh", "-T", "-F", w.config, "chaos", line)
	fmt.Fprintf(w.stderr, "%v: %d bytes, at most %d a second: %s\n", time.Now(), size, rate, cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var feeding sync.WaitGroup
	var feedErr error
	feeding.Go(func() {
		if in != nil {
			feedErr = w.feed(stdin, io.LimitReader(in, size), rate)
		}
		feedErr = errors.Join(feedErr, stdin.Close())
	})
	back := size
	if want == nil {
		back, want = 0, strings.NewReader("")
	}
	compareErr := w.compare(stdout, want, back)
	if compareErr != nil {
		_ = cmd.Cancel() // it would wait for somebody to read the rest
	}
	feeding.Wait()
	if err := cmd.Wait(); err != nil || compareErr != nil || feedErr != nil {
		return fmt.Errorf("%s: %w", cmd, errors.Join(compareErr, err, feedErr))
	}
	return nil
}

// feed writes in pieces of any size, at a rate if there is one.
func (w *worker) feed(out io.Writer, in io.Reader, rate int64) error {
	rng := rand.New(rand.NewPCG(w.c.seed, uint64(rate)))
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf[:1+rng.IntN(len(buf))])
		if n > 0 {
			if _, err := out.Write(buf[:n]); err != nil {
				return err
			}
			if rate > 0 {
				timer := time.NewTimer(time.Duration(n) * time.Second / time.Duration(rate))
				select {
				case <-timer.C:
				case <-w.c.ctx.Done():
					timer.Stop()
					return context.Cause(w.c.ctx)
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// compare reads to the end and compares every byte.
func (w *worker) compare(got, want io.Reader, size int64) error {
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	var at int64
	for {
		n, err := got.Read(a)
		if at+int64(n) > size {
			return fmt.Errorf("more than the %d bytes arrived that were sent", size)
		}
		if _, err := io.ReadFull(want, b[:n]); err != nil {
			return err
		}
		for i := range n {
			if a[i] != b[i] {
				return fmt.Errorf("byte %d is %#x, want %#x", at+int64(i), a[i], b[i])
			}
		}
		at += int64(n)
		w.moved.Add(int64(n))
		if err == io.EOF && at == size {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d bytes of %d: %w", at, size, err)
		}
	}
}
