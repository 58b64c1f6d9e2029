package guestfile

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.com/converge/pkg/transport"
)

// Limits of what a server can make this side take.
const (
	maxSums    = 64 << 10
	maxProgram = 128 << 20
	// downloadTime is for the checksums and the program together.
	downloadTime = 2 * time.Minute
)

const sumsName = "SHA256SUMS"

// programs are the names of what will do, the best first: a guest is no sftp
// server.
var programs = []string{"agent", "guest"}

// download fetches the program that the server has for a platform, unless it is
// in the cache, and compares it with the server's checksum.
func (s *Source) download(ctx context.Context, goos, arch string) (string, error) {
	if s.cfg.Docs == "" || s.cfg.Client == nil {
		return "", errors.New("there is no server to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, downloadTime)
	defer cancel()
	var text bytes.Buffer
	if err := s.get(ctx, sumsName, maxSums, &text); err != nil {
		return "", err
	}
	file, sum, err := choose(text.Bytes(), goos, arch)
	if err != nil {
		return "", fmt.Errorf("%s%s: %w", s.cfg.Docs, sumsName, err)
	}
	folder, err := s.folder()
	if err != nil {
		return "", err
	}
	stored := filepath.Join(folder, file+"-"+sum)
	if same(stored, sum) {
		return stored, nil
	}
	if err := s.store(ctx, stored, file, sum, goos, arch); err != nil {
		return "", err
	}
	forget(folder, file, stored)
	return stored, nil
}

// store downloads a program into a file, which is there whole and right, or not
// at all.
func (s *Source) store(ctx context.Context, to, file, sum, goos, arch string) error {
	f, err := os.CreateTemp(filepath.Dir(to), ".download-")
	if err != nil {
		return fmt.Errorf("cannot keep it: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // nothing once it has its name
	hash := sha256.New()
	err = s.get(ctx, file, maxProgram, io.MultiWriter(f, hash))
	if closed := f.Close(); err == nil && closed != nil {
		err = fmt.Errorf("cannot keep it: %w", closed)
	}
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != sum {
		return fmt.Errorf("%s%s is not what %s says: its checksum is %s, not %s", s.cfg.Docs, file, sumsName, got, sum)
	}
	if err := Check(f.Name(), goos, arch); err != nil {
		return fmt.Errorf("%s%s %w", s.cfg.Docs, file, err)
	}
	if err := os.Rename(f.Name(), to); err != nil {
		return fmt.Errorf("cannot keep it: %w", err)
	}
	return nil
}

// get writes what the server has under a name to w, and no more than limit
// bytes of it.
func (s *Source) get(ctx context.Context, name string, limit int64, w io.Writer) error {
	url := s.cfg.Docs + name
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for key, values := range s.cfg.Header {
		req.Header[key] = values
	}
	client := http.Client{Transport: s.cfg.Client, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return transport.Explain(url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		refused := transport.Refused(resp)
		if refused.Text == "" {
			return fmt.Errorf("%s: the server answered %s", url, transport.Printable(resp.Status))
		}
		return fmt.Errorf("%s: %w", url, refused)
	}
	n, err := io.Copy(w, io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s broke off after %d bytes: %w", url, n, err)
	case n > limit:
		return fmt.Errorf("%s is larger than %d KiB", url, limit>>10)
	}
	return nil
}

// choose finds a program for a platform among the lines of SHA256SUMS, as
// sha256sum writes them.
func choose(sums []byte, goos, arch string) (file, sum string, err error) {
	found := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(sums)); lines.Scan(); {
		sum, file, ok := strings.Cut(lines.Text(), "  ")
		if raw, err := hex.DecodeString(sum); ok && err == nil && len(raw) == sha256.Size {
			found[file] = strings.ToLower(sum)
		}
	}
	for _, program := range programs {
		file := program + "-" + goos + "-" + arch
		if sum := found[file]; sum != "" {
			return file, sum, nil
		}
	}
	return "", "", fmt.Errorf("this server hands out no agent and no guest for %s", platform(goos, arch))
}

// same reports whether a file has that checksum.
func same(file, sum string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	hash := sha256.New()
	if _, err := io.Copy(hash, io.LimitReader(f, maxProgram+1)); err != nil {
		return false
	}
	return hex.EncodeToString(hash.Sum(nil)) == sum
}

// forget removes earlier versions of a program, and what was left of downloads
// that were cut off a day ago and more. An agent that still uses one of them
// downloads it again.
func forget(folder, file, keep string) {
	earlier, _ := filepath.Glob(filepath.Join(folder, file+"-*"))
	for _, old := range earlier {
		if old != keep {
			_ = os.Remove(old)
		}
	}
	left, _ := filepath.Glob(filepath.Join(folder, ".download-*"))
	for _, old := range left {
		if info, err := os.Stat(old); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.Remove(old)
		}
	}
}
