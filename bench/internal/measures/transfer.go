//go:build linux

package measures

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"example.com/converge/bench/internal/peers"
	"example.com/converge/bench/internal/proc"
	"example.com/converge/bench/internal/table"
)

// sameKex keeps the key exchange out of the comparison: OpenSSH's own choice
// costs ten times as much as the agent's.
const sameKex = "KexAlgorithms=curve25519-sha256"

// way is one way to move a file.
type way struct {
	column string
	cipher string // "" is the client's choice
	kind   string // get, put or cat
}

// ways are those with the client's own choice of cipher, and those with a
// given one.
func ways() (own, given []way) {
	own = []way{{"get", "", "get"}, {"put", "", "put"}, {"cat", "", "cat"}}
	for _, cipher := range []struct{ short, name string }{
		{"chacha20", "chacha20-poly1305@openssh.com"}, {"aes128-gcm", "aes128-gcm@openssh.com"},
	} {
		for _, kind := range []string{"get", "put"} {
			given = append(given, way{kind + ", " + cipher.short, cipher.name, kind})
		}
	}
	return own, given
}

// transfer measures sftp and ssh cat as a user types them.
func transfer(ctx context.Context, cfg Config) ([]*table.Sheet, error) {
	own, given := ways()
	var columns []string
	for _, w := range slices.Concat(own, given) {
		columns = append(columns, w.column)
	}
	speeds := table.New("transfer-speed", "sftp get and put, ssh cat: MiB/s",
		"The whole command, login with curve25519 included. Where no cipher is named it is what a stock client comes to.",
		peers.Direct, columns...)
	costs := table.New("transfer-cpu", "sftp get and put, ssh cat: CPU seconds per GiB of the whole chain",
		"Client, wsproxy, relay and server together.", peers.Direct, columns...)
	f, err := newFiles(cfg)
	if err != nil {
		return nil, err
	}
	defer f.remove()
	contest := begin(ctx, cfg, "transfer", peers.Setup{End: peers.SSH}, isSSH, speeds, costs)
	defer contest.end()
	for round := range cfg.Rounds {
		for _, w := range slices.Concat(own, given) {
			what := fmt.Sprintf("round %d of %d, %s", round+1, cfg.Rounds, w.column)
			err := contest.turn(ctx, round, what, func(ctx context.Context, x contender) error {
				if w.cipher != "" && !x.peer.Ciphers {
					return nil
				}
				return f.move(ctx, x, w, round == 0, speeds, costs)
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return []*table.Sheet{speeds, costs}, nil
}

// files are what is transferred, and where to.
type files struct {
	source, target string
	size           int64
	sum            [sha256.Size]byte
}

// newFiles makes a file of random bytes.
func newFiles(cfg Config) (*files, error) {
	f := &files{
		source: filepath.Join(cfg.Lab.Dir, "source"), target: filepath.Join(cfg.Lab.Dir, "target"),
		size: cfg.Size,
	}
	out, err := os.Create(f.source)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	_, err = io.CopyN(io.MultiWriter(out, hash), rand.Reader, cfg.Size)
	if err := errors.Join(err, out.Close()); err != nil {
		f.remove()
		return nil, fmt.Errorf("cannot make a file of %d bytes: %w", cfg.Size, err)
	}
	hash.Sum(f.sum[:0])
	return f, nil
}

func (f *files) remove() {
	_ = os.Remove(f.source)
	_ = os.Remove(f.target)
}

// move transfers the file once.
func (f *files) move(ctx context.Context, x contender, w way, verify bool, speeds, costs *table.Sheet) error {
	if err := os.Remove(f.target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	options := []string{sameKex}
	if w.cipher != "" {
		options = append(options, "Ciphers="+w.cipher)
	}
	var command proc.Command
	if w.kind == "cat" {
		command.Args = append(x.line.SSH("ssh", x.line.Front, options...), "cat "+f.source)
	} else {
		args := x.line.SSH("sftp", x.line.Front, options...)
		command.Args = slices.Insert(args, 1, "-q", "-b", "-")
		command.Stdin = fmt.Appendf(nil, "%s %s %s\n", w.kind, f.source, f.target)
	}
	calm := x.line.Calm()
	before, err := x.line.CPU()
	if err != nil {
		return err
	}
	usage, err := proc.Run(ctx, command)
	if err != nil {
		return err
	}
	calm(ctx)
	after, err := x.line.CPU()
	if err != nil {
		return err
	}
	if w.kind != "cat" {
		if err := f.check(verify); err != nil {
			return err
		}
	}
	speeds.Add(x.peer.Name, w.column, speed(f.size, usage.Wall))
	costs.Add(x.peer.Name, w.column, perGiB(usage.CPU+after-before, f.size))
	return nil
}

// check compares what arrived with what was sent: its size, or every byte.
func (f *files) check(whole bool) error {
	in, err := os.Open(f.target)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if info.Size() != f.size {
		return fmt.Errorf("%w: %d bytes of %d", errShort, info.Size(), f.size)
	}
	if !whole {
		return nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, in); err != nil {
		return err
	}
	if [sha256.Size]byte(hash.Sum(nil)) != f.sum {
		return errShort
	}
	return nil
}
