// Package guestfile finds the executable that is copied into containers: the
// guest agent, and the sftp server where it is one. The agent is both, so its own
// file will do where it is static and for the container's platform; otherwise the
// server hands out one for every platform, with its checksum.
//
// It must know nothing of containers.
package guestfile

import (
	"context"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Config says where executables may come from.
type Config struct {
	// Docs is the URL of the folder in which the server hands out programs,
	// with a slash at its end.
	Docs string
	// Client asks it, and Header is for each request. The client must not be
	// used for other things that Source would end.
	Client *http.Transport
	Header http.Header
	// Self is the file of this program; "" is Self().
	Self string
	// Cache is a folder for what was downloaded, which is made if need be; ""
	// is one in the user's cache. If neither can be written, a temporary one
	// serves until Close.
	Cache string
	// Logger is told of downloads; nil discards.
	Logger *slog.Logger
}

// Source finds executables. Its methods may be called concurrently.
type Source struct {
	cfg Config
	log *slog.Logger

	mu        sync.Mutex
	platforms map[string]*slot
	temporary string // the folder, once made
}

// slot is a platform, whose file one at a time looks for.
type slot struct {
	turn chan struct{} // guards path
	path string
}

// New returns a source. It asks nobody yet.
func New(cfg Config) *Source {
	s := &Source{cfg: cfg, log: cfg.Logger, platforms: map[string]*slot{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.cfg.Self == "" {
		s.cfg.Self = Self()
	}
	return s
}

// Self is the file of this program, which can be read even where the file that
// it was started from is gone.
func Self() string {
	const proc = "/proc/self/exe"
	if info, err := os.Stat(proc); err == nil && info.Mode().IsRegular() {
		return proc
	}
	file, err := os.Executable()
	if err != nil {
		return ""
	}
	return file
}

// platform is what can be had for one: Go's names.
func platform(goos, arch string) string { return goos + "/" + arch }

// maxPlatforms bounds how many are remembered: an engine tells which.
const maxPlatforms = 16

// Guest returns the path of an executable for a platform, in Go's names, as
// container.GuestSource wants it. Concurrent calls for the same platform
// download once.
func (s *Source) Guest(ctx context.Context, goos, arch string) (string, error) {
	if !name(goos) || !name(arch) {
		return "", fmt.Errorf("%.32q is not the name of a platform", platform(goos, arch))
	}
	s.mu.Lock()
	p := s.platforms[platform(goos, arch)]
	if p == nil {
		if len(s.platforms) >= maxPlatforms {
			s.mu.Unlock()
			return "", errors.New("there are containers of too many platforms")
		}
		p = &slot{turn: make(chan struct{}, 1)}
		s.platforms[platform(goos, arch)] = p
	}
	s.mu.Unlock()
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-p.turn }()
	if p.path != "" {
		if _, err := os.Stat(p.path); err == nil {
			return p.path, nil
		}
		p.path = "" // somebody has cleaned up
	}
	found, err := s.find(ctx, goos, arch)
	if err == nil {
		p.path = found
	}
	return found, err
}

func (s *Source) find(ctx context.Context, goos, arch string) (string, error) {
	self := Check(s.cfg.Self, goos, arch)
	if self == nil {
		return s.cfg.Self, nil
	}
	start := time.Now()
	found, err := s.download(ctx, goos, arch)
	if err != nil {
		return "", fmt.Errorf("this agent cannot be copied there: it %w; and none can be downloaded: %w: name a file with --guest", self, err)
	}
	s.log.Info("downloaded a guest for containers", "platform", platform(goos, arch), "file", found,
		"took", time.Since(start).Round(time.Millisecond))
	return found, nil
}

// Close removes what was downloaded, unless it is in a cache. It must not be
// called while Guest is.
func (s *Source) Close() error {
	s.cfg.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.temporary == "" {
		return nil
	}
	err := os.RemoveAll(s.temporary)
	s.temporary = ""
	return err
}

func (c *Config) close() {
	if c.Client != nil {
		c.Client.CloseIdleConnections()
	}
}

// name reports whether a word can be part of a file's name.
func name(word string) bool {
	return word != "" && len(word) <= 32 && strings.IndexFunc(word, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}) < 0
}

// machines are the values of e_machine of Linux's platforms, elf(5).
var machines = map[string]elf.Machine{
	"386": elf.EM_386, "amd64": elf.EM_X86_64, "arm": elf.EM_ARM, "arm64": elf.EM_AARCH64, "loong64": elf.EM_LOONGARCH,
	"mips": elf.EM_MIPS, "mipsle": elf.EM_MIPS, "mips64": elf.EM_MIPS, "mips64le": elf.EM_MIPS,
	"ppc64": elf.EM_PPC64, "ppc64le": elf.EM_PPC64, "riscv64": elf.EM_RISCV, "s390x": elf.EM_S390,
}

// ErrDynamic is in the error of Check for a file that needs libraries.
var ErrDynamic = errors.New("is linked with libraries, which a container need not have: build it with CGO_ENABLED=0")

// Check returns why a file cannot run in every container of a platform, as the end
// of a sentence that begins with the file; nil if it can. arch "" is any.
func Check(file, goos, arch string) error {
	if goos != "linux" {
		return fmt.Errorf("is for containers of linux, and not of %s", goos)
	}
	if file == "" {
		return errors.New("does not know its own file")
	}
	f, err := elf.Open(file)
	var path *os.PathError
	switch {
	case errors.As(err, &path):
		return fmt.Errorf("cannot be read: %w", err)
	case err != nil:
		return errors.New("is no program for Linux")
	}
	defer func() { _ = f.Close() }()
	if machine, known := machines[arch]; arch != "" && (!known || f.Machine != machine) {
		return fmt.Errorf("is not for %s", platform(goos, arch))
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return ErrDynamic
		}
	}
	return nil
}

// IsAgent reports whether a file is an agent, which is an sftp server too, and
// not a guest alone. What is not Go's is none.
func IsAgent(file string) bool {
	info, err := buildinfo.ReadFile(file)
	return err == nil && path.Base(info.Path) == "agent"
}

// folder returns one for downloads.
func (s *Source) folder() (string, error) {
	cache := s.cfg.Cache
	if cache == "" {
		if user, err := os.UserCacheDir(); err == nil && filepath.IsAbs(user) {
			cache = filepath.Join(user, "converge", "guest")
		}
	}
	if cache != "" && os.MkdirAll(cache, 0o700) == nil {
		if f, err := os.CreateTemp(cache, "."); err == nil {
			_ = f.Close()
			return cache, os.Remove(f.Name())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.temporary == "" {
		var err error
		if s.temporary, err = os.MkdirTemp("", "converge-guest-"); err != nil {
			return "", fmt.Errorf("there is no folder for it: %w", err)
		}
	}
	return s.temporary, nil
}
