package transport

import (
	"crypto/x509"
	"fmt"
	"os"
	"runtime"
)

// Roots are the system's certificates with those of a PEM file: for hosts that
// may be anywhere, unlike the server that the file is for.
func Roots(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		if runtime.GOOS != "windows" {
			return nil, fmt.Errorf("cannot read the system's certificates: %w", err)
		}
		pool = x509.NewCertPool()
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the CA file: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the CA file %s holds no PEM certificate", file)
	}
	return pool, nil
}
