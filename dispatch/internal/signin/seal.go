package signin

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	keySize = 32
	// maxCookie is the longest value of a cookie, in bytes: browsers keep 4096
	// with its name and attributes.
	maxCookie = 3800
)

// sealer encrypts and authenticates what cookies hold.
type sealer struct {
	aead cipher.AEAD
	mac  []byte
}

// newSealer makes one with the key of a file, which is made if it is not there;
// "" has a key of its own.
func newSealer(file string) (sealer, error) {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	if file != "" {
		var err error
		if key, err = keepKey(file, key); err != nil {
			return sealer{}, fmt.Errorf("cannot use the key of the cookies: %w", err)
		}
	}
	part := func(use string) ([]byte, error) {
		return hkdf.Expand(sha256.New, key, "converge dispatch "+use, keySize)
	}
	seal, err := part("cookies")
	if err != nil {
		return sealer{}, err
	}
	mac, err := part("forms")
	if err != nil {
		return sealer{}, err
	}
	block, err := aes.NewCipher(seal)
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return sealer{aead, mac}, err
}

// keepKey reads the key of a file, or puts a fresh one there. Of two programs that
// do it at once both have the same in the end.
func keepKey(file string, fresh []byte) ([]byte, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		draft, err := os.CreateTemp(filepath.Dir(file), ".cookie-key-*") // 0600
		if err != nil {
			return nil, err
		}
		defer os.Remove(draft.Name())
		_, err = draft.WriteString(hex.EncodeToString(fresh) + "\n")
		if err = errors.Join(err, draft.Sync(), draft.Close()); err != nil {
			return nil, err
		}
		if err := os.Link(draft.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		text, err = os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return decodeKey(file, text)
	}
	if err != nil {
		return nil, err
	}
	return decodeKey(file, text)
}

func decodeKey(file string, text []byte) ([]byte, error) {
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("%s holds no key of %d hexadecimal digits: delete it, and everybody signs in anew", file, 2*keySize)
	}
	return key, nil
}

// seal encodes and encrypts a value for one use.
func (s sealer) seal(use string, v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	value := base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, text, []byte(use)))
	if len(value) > maxCookie {
		return "", fmt.Errorf("%d bytes are too many for a cookie", len(value))
	}
	return value, nil
}

// open reads what seal made for the same use.
func (s sealer) open(use, value string, v any) bool {
	if len(value) > maxCookie {
		return false
	}
	sealed, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		return false
	}
	text, err := s.aead.Open(nil, nil, sealed, []byte(use))
	return err == nil && json.Unmarshal(text, v) == nil
}

// open reads a cookie of a request. There must be one: a second could be
// somebody else's.
func (d *Door) open(r *http.Request, name, use string, v any) bool {
	cookies := r.CookiesNamed(d.cookieName(name))
	return len(cookies) == 1 && d.key.open(use, cookies[0].Value, v)
}

// cookieName has the prefix by which browsers keep the host's other programs, and
// what is not TLS, from setting it (RFC 6265bis, section 4.1.3.2).
func (d *Door) cookieName(name string) string {
	if d.secure() {
		return "__Host-converge_dispatch_" + name
	}
	return "converge_dispatch_" + name
}

func (d *Door) secure() bool { return d.opt.PublicURL.Scheme == "https" }

// cookie makes one. Lax lets it come along when the forge sends the browser back,
// and not with the forms of others.
func (d *Door) cookie(name, value string, life time.Duration) *http.Cookie {
	c := &http.Cookie{
		Name: d.cookieName(name), Value: value, Path: "/", MaxAge: int(life / time.Second),
		HttpOnly: true, Secure: d.secure(), SameSite: http.SameSiteLaxMode,
	}
	if life < 0 {
		c.MaxAge = -1
	}
	return c
}
