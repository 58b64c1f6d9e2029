package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/pkg/certtest"
)

// files is a folder with a pair.
type files struct {
	t         *testing.T
	cert, key string
}

func newFiles(t *testing.T) files {
	dir := t.TempDir()
	return files{t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

func newPair(t *testing.T, serial int64) certtest.Pair {
	t.Helper()
	p, err := certtest.New(serial)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (f files) write(p certtest.Pair) {
	f.t.Helper()
	if err := p.Write(f.cert, f.key); err != nil {
		f.t.Fatal(err)
	}
}

// load loads a pair that looks at its files each time, and its log.
func (f files) load() (*Pair, *bytes.Buffer) {
	f.t.Helper()
	var log bytes.Buffer
	p, err := Load(f.cert, f.key, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		f.t.Fatal(err)
	}
	p.recheck = 0
	return p, &log
}

// wantSerial checks which certificate a handshake gets.
func wantSerial(t *testing.T, p *Pair, serial int64) {
	t.Helper()
	near, far := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = tls.Server(far, &tls.Config{GetCertificate: p.GetCertificate}).Handshake()
		_ = far.Close()
	})
	defer serving.Wait()
	defer near.Close()
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true}) // which one is the question
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if got := client.ConnectionState().PeerCertificates[0].SerialNumber; got.Int64() != serial {
		t.Errorf("got the certificate %v, want %d", got, serial)
	}
}

func TestReload(t *testing.T) {
	f := newFiles(t)
	first, second := newPair(t, 1), newPair(t, 2)
	f.write(first)
	p, log := f.load()
	wantSerial(t, p, 1)
	if log.Len() > 0 {
		t.Errorf("without a change it logged %s", log)
	}
	f.write(second)
	wantSerial(t, p, 2)
	wantSerial(t, p, 2)
	f.write(first)
	wantSerial(t, p, 1)
	if n := strings.Count(log.String(), "reloaded"); n != 2 || strings.Count(log.String(), "\n") != 2 {
		t.Errorf("for two changes it logged %s", log)
	}
}

// TestReloadOfTheSameSizeAndTime is what cp -p and coarse clocks do.
func TestReloadOfTheSameSizeAndTime(t *testing.T) {
	f := newFiles(t)
	first, second := newPair(t, 1), newPair(t, 2)
	for len(first.Cert) != len(second.Cert) { // signatures differ by a byte or two
		second = newPair(t, 2)
	}
	f.write(first)
	var before [2]os.FileInfo
	for i, name := range []string{f.cert, f.key} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		before[i] = info
	}
	p, _ := f.load()
	f.write(second)
	for i, name := range []string{f.cert, f.key} {
		if err := os.Chtimes(name, before[i].ModTime(), before[i].ModTime()); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(name); err != nil || info.Size() != before[i].Size() {
			t.Fatalf("%v, %v: the test does not test anything", info, err)
		}
	}
	wantSerial(t, p, 2)
}

// TestBrokenPairKeepsTheOld: what cannot be used is said once, whatever it is.
func TestBrokenPairKeepsTheOld(t *testing.T) {
	other := newPair(t, 3)
	for name, spoil := range map[string]func(files) error{
		"half a renewal":    func(f files) error { return os.WriteFile(f.cert, other.Cert, 0o600) },
		"the other half":    func(f files) error { return os.WriteFile(f.key, other.Key, 0o600) },
		"cut certificate":   func(f files) error { return os.Truncate(f.cert, 100) },
		"empty certificate": func(f files) error { return os.Truncate(f.cert, 0) },
		"empty key":         func(f files) error { return os.Truncate(f.key, 0) },
		"no certificate":    func(f files) error { return os.Remove(f.cert) },
		"no key":            func(f files) error { return os.Remove(f.key) },
		"swapped": func(f files) error {
			return certtest.Pair{Cert: other.Key, Key: other.Cert}.Write(f.cert, f.key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			f.write(newPair(t, 1))
			p, log := f.load()
			if err := spoil(f); err != nil {
				t.Fatal(err)
			}
			wantSerial(t, p, 1)
			wantSerial(t, p, 1)
			if n := strings.Count(log.String(), "serving with the old TLS certificate"); n != 1 {
				t.Errorf("said %d times: %s", n, log)
			}
			if strings.Contains(log.String(), "PRIVATE") {
				t.Errorf("the log holds the key: %s", log)
			}
			f.write(newPair(t, 2))
			wantSerial(t, p, 2)
			// And it is said again, when it happens again.
			if err := spoil(f); err != nil {
				t.Fatal(err)
			}
			wantSerial(t, p, 2)
			if n := strings.Count(log.String(), "serving with the old TLS certificate"); n != 2 {
				t.Errorf("the second time: said %d times: %s", n, log)
			}
		})
	}
}

// TestBrokenAndBack has the old files return, and break again as before.
func TestBrokenAndBack(t *testing.T) {
	f := newFiles(t)
	pair := newPair(t, 1)
	f.write(pair)
	p, log := f.load()
	for range 2 {
		if err := os.Remove(f.key); err != nil {
			t.Fatal(err)
		}
		wantSerial(t, p, 1)
		f.write(pair)
		wantSerial(t, p, 1)
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("two breaks and no other certificate: logged %d lines: %s", n, log)
	}
}

// TestRecheck looks at the files once a second, however many handshakes come.
func TestRecheck(t *testing.T) {
	f := newFiles(t)
	f.write(newPair(t, 1))
	second := newPair(t, 2)
	synctest.Test(t, func(t *testing.T) {
		p, err := Load(f.cert, f.key, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.write(second)
		get := func() int64 {
			cert, err := p.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(cert.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			return leaf.SerialNumber.Int64()
		}
		time.Sleep(recheck - 1)
		if got := get(); got != 1 {
			t.Errorf("before a second has gone by: certificate %d", got)
		}
		time.Sleep(time.Nanosecond)
		if got := get(); got != 2 {
			t.Errorf("after a second: certificate %d", got)
		}
	})
}

// TestConcurrent changes the files under handshakes; each gets a whole pair.
func TestConcurrent(t *testing.T) {
	f := newFiles(t)
	pairs := []certtest.Pair{newPair(t, 1), newPair(t, 1)}
	f.write(pairs[0])
	p, _ := f.load()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				wantSerial(t, p, 1) // fails if certificate and key do not fit
			}
		})
	}
	for i := range 50 {
		f.write(pairs[i%2])
	}
	all.Wait()
}

func TestLoadFails(t *testing.T) {
	f := newFiles(t)
	pair, other := newPair(t, 1), newPair(t, 2)
	f.write(pair)
	dir := t.TempDir()
	strange, garbage := filepath.Join(dir, "strange.pem"), filepath.Join(dir, "garbage.pem")
	if err := other.Write(filepath.Join(dir, "unused.pem"), strange); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(garbage, []byte("no PEM\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.pem")
	for name, test := range map[string]struct{ cert, key, want string }{
		"no certificate":     {missing, f.key, "cannot read the TLS certificate: open " + missing},
		"no key":             {f.cert, missing, "cannot read the TLS key: open " + missing},
		"a folder":           {dir, f.key, "cannot read the TLS certificate: read " + dir},
		"garbage":            {garbage, f.key, "cannot use the TLS certificate " + garbage},
		"key of another one": {f.cert, strange, "private key does not match public key"},
		"swapped":            {f.key, f.cert, "cannot use the TLS certificate " + f.key},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Load(test.cert, test.key, nil)
			if err == nil || p != nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
