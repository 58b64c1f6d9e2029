// Package certs gives a TLS server its certificate and follows the files that
// it comes from, so that a renewal needs no restart. It knows nothing of what
// is served, and makes no certificate of its own.
package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// recheck is how often the files are looked at, at most.
const recheck = time.Second

// Pair is a certificate and key file. All methods may be called concurrently.
type Pair struct {
	log     *slog.Logger
	recheck time.Duration

	mu      sync.Mutex
	files   paths
	current *tls.Certificate
	sum     [sha256.Size]byte // of the files that current was made of
	checked time.Time
	problem string // what was logged last about changed files
}

// paths are those of a certificate chain and of its key.
type paths struct{ cert, key string }

// Load reads the pair. The error names the file and what is wrong with it. A
// nil log discards.
func Load(certFile, keyFile string, log *slog.Logger) (*Pair, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Pair{files: paths{certFile, keyFile}, log: log, recheck: recheck}
	if _, err := p.load(p.files); err != nil {
		return nil, err
	}
	p.checked = time.Now()
	return p, nil
}

// Use serves another pair of files from now on. Its error says what is wrong
// with them; then nothing has changed.
func (p *Pair) Use(certFile, keyFile string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := paths{certFile, keyFile}
	if _, err := p.load(next); err != nil {
		return err
	}
	p.files, p.problem = next, ""
	p.checked = time.Now()
	return nil
}

// End returns when the certificate that is served ends.
func (p *Pair) End() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if leaf := p.current.Leaf; leaf != nil {
		return leaf.NotAfter
	}
	return time.Time{}
}

// load reads both files and makes them the current pair if they are another
// one than that. The caller holds the mutex or is the only one.
func (p *Pair) load(from paths) (changed bool, err error) {
	cert, err := os.ReadFile(from.cert)
	if err != nil {
		return false, fmt.Errorf("cannot read the TLS certificate: %w", err)
	}
	key, err := os.ReadFile(from.key)
	if err != nil {
		return false, fmt.Errorf("cannot read the TLS key: %w", err)
	}
	// Contents, not times: a renewal may leave size and time as they were.
	sum := sha256.Sum256(bytes.Join([][]byte{cert, key}, []byte{0}))
	if p.current != nil && sum == p.sum {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("cannot use the TLS certificate %s with the key %s: %w", from.cert, from.key, err)
	}
	p.current, p.sum = &pair, sum
	return true, nil
}

// GetCertificate has the signature of tls.Config. It re-reads files that have
// changed; while they do not fit together, as in the middle of a renewal, the
// last good pair serves on. It never fails.
func (p *Pair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.checked) < p.recheck {
		return p.current, nil
	}
	p.checked = time.Now()
	changed, err := p.load(p.files)
	switch {
	case err != nil:
		if problem := err.Error(); problem != p.problem { // not once a second
			p.problem = problem
			p.log.Warn("serving with the old TLS certificate", "err", err)
		}
	case changed:
		p.log.Info("TLS certificate reloaded", "file", p.files.cert)
		p.problem = ""
	default:
		p.problem = ""
	}
	return p.current, nil
}
