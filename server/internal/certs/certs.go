// Package certs gives a TLS server its certificate and follows the files that
// it comes from, so that a renewal needs no restart.
package certs

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// recheck is how often the files are looked at, at most.
const recheck = time.Second

// Pair is a certificate and key file. All methods may be called concurrently.
type Pair struct {
	certFile, keyFile string
	log               *slog.Logger
	recheck           time.Duration

	mu      sync.Mutex
	current *tls.Certificate
	stamp   [2]stamp
	checked time.Time
	problem string // what was logged last about changed files
}

// stamp tells two contents of a file apart without reading it.
type stamp struct {
	modified time.Time
	size     int64
}

// Load reads the pair. The error names the file and what is wrong with it. A
// nil log discards.
func Load(certFile, keyFile string, log *slog.Logger) (*Pair, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Pair{certFile: certFile, keyFile: keyFile, log: log, recheck: recheck}
	stamps, err := p.look()
	if err != nil {
		return nil, fmt.Errorf("cannot read the TLS certificate or key: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("cannot use the TLS certificate %s with the key %s: %w", certFile, keyFile, err)
	}
	p.current, p.stamp, p.checked = &cert, stamps, time.Now()
	return p, nil
}

func (p *Pair) look() (stamps [2]stamp, err error) {
	for i, name := range []string{p.certFile, p.keyFile} {
		var info fs.FileInfo
		if info, err = os.Stat(name); err != nil {
			return stamps, err
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	return stamps, nil
}

// GetCertificate has the signature of tls.Config. It re-reads files that have
// changed; while they do not fit together, as in the middle of a renewal, the
// last good pair serves on.
func (p *Pair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.checked) < p.recheck {
		return p.current, nil
	}
	p.checked = time.Now()
	stamps, err := p.look()
	if err == nil && stamps == p.stamp {
		return p.current, nil
	}
	var cert tls.Certificate
	if err == nil {
		cert, err = tls.LoadX509KeyPair(p.certFile, p.keyFile)
	}
	if err != nil {
		if problem := err.Error(); problem != p.problem { // not once a second
			p.problem = problem
			p.log.Warn("the changed TLS certificate cannot be used: serving with the old one", "err", err)
		}
		return p.current, nil
	}
	p.current, p.stamp, p.problem = &cert, stamps, ""
	p.log.Info("TLS certificate reloaded", "file", p.certFile)
	return p.current, nil
}
