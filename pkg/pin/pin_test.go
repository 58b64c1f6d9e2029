package pin

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func newEd25519(t *testing.T) ssh.PublicKey {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return public(t, pub)
}

func newECDSA(t *testing.T) ssh.PublicKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public(t, &private.PublicKey)
}

func public(t *testing.T, k any) ssh.PublicKey {
	t.Helper()
	pub, err := ssh.NewPublicKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func TestPinOfAKey(t *testing.T) {
	tests := []struct {
		name       string
		key, other ssh.PublicKey
		length     int
	}{
		{"ed25519", newEd25519(t), newEd25519(t), 43},
		{"ecdsa", newECDSA(t), newECDSA(t), len(prefix) + 43},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := Of(test.key)
			text := p.String()
			if len(text) != test.length {
				t.Errorf("pin %q has %d characters, want %d", text, len(text), test.length)
			}
			again, err := Parse(text)
			if err != nil || again != p {
				t.Fatalf("Parse(%q) = %v, %v, want the pin again", text, again, err)
			}
			if !again.Matches(test.key) {
				t.Error("the pin does not match its key")
			}
			if again.Matches(test.other) {
				t.Error("the pin matches another key")
			}
			// What ssh-keygen prints is a pin too, whatever the type.
			printed, err := Parse(ssh.FingerprintSHA256(test.key))
			if err != nil || !printed.Matches(test.key) || printed.Matches(test.other) {
				t.Errorf("the printed fingerprint: %v, %v, or it matches the wrong keys", printed, err)
			}
		})
	}
}

func TestKeyIsNotItsFingerprint(t *testing.T) {
	k := newEd25519(t)
	fingerprinted, err := Parse(ssh.FingerprintSHA256(k))
	if err != nil {
		t.Fatal(err)
	}
	// The same 32 bytes under the other kind are another pin.
	swapped := Pin{kind: key, sum: fingerprinted.sum}
	if swapped.Matches(k) {
		t.Error("a fingerprint was taken for a key")
	}
}

func TestZeroPin(t *testing.T) {
	var p Pin
	if !p.IsZero() || p.String() != "" || p.Matches(newEd25519(t)) {
		t.Errorf("the zero pin: zero %v, %q, or it matches a key", p.IsZero(), p)
	}
	if Of(newEd25519(t)).IsZero() {
		t.Error("the pin of a key is none")
	}
}

func TestParseRefuses(t *testing.T) {
	good := Of(newEd25519(t)).String()
	for _, text := range []string{
		"", "x", good[1:], good + "A", good + "=", good[:42] + "\n", good[:20] + "\n" + good[20:],
		good[:42] + "+", prefix, prefix + good[1:], prefix + strings.Repeat("-", 43), "sha1:" + good,
		good[:42] + "B", // set bits behind the last byte
	} {
		p, err := Parse(text)
		if !errors.Is(err, ErrInvalid) || !p.IsZero() {
			t.Errorf("Parse(%q) = %v, %v, want ErrInvalid", text, p, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		want := text
		if len(text) > len(prefix) && strings.EqualFold(text[:len(prefix)], prefix) {
			want = prefix + text[len(prefix):]
		}
		if p.String() != want {
			t.Errorf("Parse(%q).String() = %q", text, p)
		}
	})
}
