package keys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// revocations is a file of what may not log in, whoever else says it may.
type revocations struct {
	file
	log  *slog.Logger
	list revoked
}

// revoked is what the file says.
type revoked struct {
	sums    map[Digest]bool
	ids     map[string]bool
	serials [][2]uint64 // from, to
}

func readRevocations(name string, log *slog.Logger) (*revocations, error) {
	if name == "" {
		return nil, nil
	}
	r := &revocations{file: file{name: name}, log: log}
	if err := r.load(true, r.take); err != nil {
		return nil, fmt.Errorf("cannot use the revoked keys: %w", err)
	}
	return r, nil
}

func (r *revocations) take(text []byte) error {
	list, err := parseRevoked(text)
	if err != nil {
		return err
	}
	r.list = list
	return nil
}

// holds reports whether a key is revoked, or a certificate by its own key, its
// authority's, its serial number or its key id. The caller holds the Set's mu.
func (r *revocations) holds(key ssh.PublicKey) bool {
	if r == nil {
		return false
	}
	r.refresh(r.log, "nobody can log in by key: the file of revoked keys cannot be used", r.take)
	if r.trouble != "" {
		return true // as sshd(8) does
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return r.list.sums[Sum(key)]
	}
	if cert.SignatureKey == nil || r.list.sums[Sum(cert)] || r.list.sums[Sum(cert.Key)] || r.list.sums[Sum(cert.SignatureKey)] || r.list.ids[cert.KeyId] {
		return true
	}
	for _, span := range r.list.serials {
		if span[0] <= cert.Serial && cert.Serial <= span[1] {
			return true
		}
	}
	return false
}

// parseRevoked reads a public key a line, and what ssh-keygen(1) calls a KRL
// specification: "key:", "sha256:" or "hash:" with a fingerprint, "id:", and
// "serial:" with a number or a range. A serial number or an id counts for every
// authority. The compiled form (ssh-keygen -k) is not understood. An error
// starts with the number of its line.
func parseRevoked(text []byte) (revoked, error) {
	list := revoked{sums: map[Digest]bool{}, ids: map[string]bool{}}
	if bytes.HasPrefix(text, []byte("SSHKRL\n")) {
		return list, errors.New("1: this is a compiled revocation list: give the text that it was made of, or one public key a line")
	}
	number := 0
	for raw := range bytes.Lines(text) {
		number++
		line := strings.TrimSpace(string(raw))
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, found := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); !found || strings.ContainsAny(name, " \t") {
			name, value = "key", line
		}
		var err error
		switch strings.ToLower(name) {
		case "key":
			err = list.addKey(value)
		case "sha256", "hash":
			err = list.addHash(strings.TrimPrefix(value, "SHA256:"))
		case "id":
			if value == "" {
				err = errors.New("there is no key id")
			}
			list.ids[value] = true
		case "serial":
			err = list.addSerial(value)
		default:
			err = errors.New("it starts with none of key:, sha256:, hash:, id:, serial: and a public key")
		}
		if err != nil {
			return revoked{}, fmt.Errorf("%d: this line revokes nothing (%w): give a public key, or a line for ssh-keygen -k", number, err)
		}
	}
	return list, nil
}

func (l *revoked) addKey(text string) error {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return errors.New("there is no public key")
	}
	l.sums[Sum(key)] = true
	return nil
}

func (l *revoked) addHash(text string) error {
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(raw) != len(Digest{}) {
		return errors.New("there is no SHA-256 fingerprint")
	}
	l.sums[Digest(raw)] = true
	return nil
}

func (l *revoked) addSerial(text string) error {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	var span [2]uint64
	for i, part := range []string{from, to} {
		var err error
		if span[i], err = strconv.ParseUint(strings.TrimSpace(part), 0, 64); err != nil {
			return errors.New("there is no serial number")
		}
	}
	if span[0] > span[1] {
		return errors.New("its range is empty")
	}
	l.serials = append(l.serials, span)
	return nil
}
