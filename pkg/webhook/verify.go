package webhook

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // only where the caller allows it
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"strconv"
	"strings"
	"time"
)

const (
	// Tolerance is how far a signed time may be from now.
	Tolerance = 5 * time.Minute
	// maxSignatures is how many signatures one header may hold.
	maxSignatures = 8
	// signingPrefix begins a key of the Standard Webhooks specification, whose
	// rest is in base64.
	signingPrefix = "whsec_"
)

// Verifier knows what senders must know. All methods may be called
// concurrently. The zero value lets nobody in.
type Verifier struct {
	// Secrets are those that are good, several while one takes the place of
	// another. Empty ones never are.
	Secrets []string
	// AllowSHA1 accepts GitHub's old signature where the sender has no other.
	AllowSHA1 bool
	// Now is the clock, for signatures with a time; nil is time.Now.
	Now func() time.Time
}

// Verify reports whether the sender of a body knows a secret, by the header of
// its forge:
//
//	GitHub   X-Hub-Signature-256, sha256= and hex; X-Hub-Signature if allowed
//	Gitea    X-Gitea-Signature, hex; else GitHub's
//	Forgejo  X-Forgejo-Signature, hex; else Gitea's
//	GitLab   webhook-signature (Standard Webhooks: v1, and base64 of the HMAC of
//	         id.time.body); else X-Gitlab-Token, the secret itself
//
// The strongest that is there decides: a wrong one is not made up for by a
// weaker one that is right. Comparisons take the same time wherever the
// difference is. The errors are ErrNoSecret, ErrUnsigned, ErrSignature and
// ErrOld, or say which header is malformed.
func (v *Verifier) Verify(d *Delivery, body []byte) error {
	var secrets []string
	for _, s := range v.Secrets {
		if strings.TrimSpace(s) != "" {
			secrets = append(secrets, s)
		}
	}
	if len(secrets) == 0 {
		return ErrNoSecret
	}
	if d.Forge == GitLab {
		return v.gitlab(d, body, secrets)
	}
	// Each name, with what stands before the digest.
	checks := []struct {
		forge        Forge
		name, prefix string
		make         func() hash.Hash
	}{
		{Forgejo, "X-Forgejo-Signature", "", sha256.New},
		{Gitea, "X-Gitea-Signature", "", sha256.New},
		{GitHub, "X-Hub-Signature-256", "sha256=", sha256.New},
		{GitHub, "X-Hub-Signature", "sha1=", sha1.New},
	}
	for _, c := range checks {
		if c.forge == Forgejo && d.Forge != Forgejo || c.forge == Gitea && d.Forge == GitHub {
			continue
		}
		value, err := single(d.header, c.name)
		if err != nil {
			return err
		}
		if value == "" {
			continue
		}
		if c.prefix == "sha1=" && !v.AllowSHA1 {
			return errors.New("the webhook is signed with SHA-1 alone: make the forge send X-Hub-Signature-256, or allow SHA-1")
		}
		text, ok := strings.CutPrefix(value, c.prefix)
		sum, err := hex.DecodeString(text)
		if !ok || err != nil {
			return ErrSignature
		}
		return match(secrets, func(key []byte) bool {
			mac := hmac.New(c.make, key)
			mac.Write(body)
			return hmac.Equal(mac.Sum(nil), sum)
		})
	}
	return ErrUnsigned
}

// match tries every secret, so that the time does not tell which one it is.
func match(secrets []string, is func(key []byte) bool) error {
	found := false
	for _, s := range secrets {
		if is([]byte(s)) {
			found = true
		}
	}
	if !found {
		return ErrSignature
	}
	return nil
}

func (v *Verifier) gitlab(d *Delivery, body []byte, secrets []string) error {
	signatures, err := single(d.header, "Webhook-Signature")
	if err != nil {
		return err
	}
	if signatures != "" {
		return v.standard(d, signatures, body, secrets)
	}
	token, err := single(d.header, "X-Gitlab-Token")
	switch {
	case err != nil:
		return err
	case token == "":
		return ErrUnsigned
	}
	return match(secrets, func(key []byte) bool {
		// Digests are of one length, so that the secret's is not told.
		a, b := sha256.Sum256(key), sha256.Sum256([]byte(token))
		return subtle.ConstantTimeCompare(a[:], b[:]) == 1
	})
}

// standard verifies as https://www.standardwebhooks.com has it.
func (v *Verifier) standard(d *Delivery, signatures string, body []byte, secrets []string) error {
	id, err := single(d.header, "Webhook-Id")
	if err != nil {
		return err
	}
	stamp, err := single(d.header, "Webhook-Timestamp")
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || id == "" {
		return ErrSignature
	}
	var sums [][]byte
	for part := range strings.FieldsSeq(signatures) {
		text, ok := strings.CutPrefix(part, "v1,")
		sum, err := base64.StdEncoding.DecodeString(text)
		if ok && err == nil && len(sums) < maxSignatures {
			sums = append(sums, sum)
		}
	}
	err = match(secrets, func(key []byte) bool {
		if text, ok := strings.CutPrefix(string(key), signingPrefix); ok {
			decoded, err := base64.StdEncoding.DecodeString(text)
			if err != nil || len(decoded) == 0 {
				return false
			}
			key = decoded
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(body)
		want, found := mac.Sum(nil), false
		for _, sum := range sums {
			if hmac.Equal(want, sum) {
				found = true
			}
		}
		return found
	})
	if err != nil {
		return err
	}
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	if age := now().Sub(time.Unix(seconds, 0)); age > Tolerance || age < -Tolerance {
		return ErrOld
	}
	return nil
}
