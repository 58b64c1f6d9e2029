package rendezvous

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
)

func TestProof(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	nonce := NewNonce()
	proof := Prove(private, nonce, "job")
	if !proof.Verify(public, nonce, "job") {
		t.Fatal("a right proof is not believed")
	}
	bent := &Proof{Signature: bytes.Clone(proof.Signature)}
	bent.Signature[0] ^= 1
	for name, ok := range map[string]bool{
		"another key":      proof.Verify(stranger, nonce, "job"),
		"another nonce":    proof.Verify(public, NewNonce(), "job"),
		"another id":       proof.Verify(public, nonce, "jobs"),
		"no key":           proof.Verify(nil, nonce, "job"),
		"short key":        proof.Verify(public[:31], nonce, "job"),
		"short nonce":      proof.Verify(public, nonce[:31], "job"),
		"nonce joins id":   proof.Verify(public, append(bytes.Clone(nonce), 'j'), "ob"),
		"bent signature":   bent.Verify(public, nonce, "job"),
		"no signature":     (&Proof{}).Verify(public, nonce, "job"),
		"plain signature":  (&Proof{Signature: ed25519.Sign(private, append(bytes.Clone(nonce), "job"...))}).Verify(public, nonce, "job"),
		"signature twice":  (&Proof{Signature: append(bytes.Clone(proof.Signature), proof.Signature...)}).Verify(public, nonce, "job"),
		"nonces are equal": bytes.Equal(NewNonce(), NewNonce()),
	} {
		if ok {
			t.Errorf("%s: believed", name)
		}
	}
	if want := "converge registration v1\x00" + string(nonce) + "job"; string(proofText(nonce, "job")) != want {
		t.Errorf("the proof signs %q, the protocol says %q", proofText(nonce, "job"), want)
	}
}

func TestCommonVersion(t *testing.T) {
	for _, test := range []struct {
		newest, oldest, want int
		sentence             string
	}{
		{Version, MinVersion, Version, ""},
		{Version + 5, MinVersion, Version, ""},
		{Version + 5, Version, Version, ""},
		{MinVersion, MinVersion, MinVersion, ""},
		{MinVersion - 1, MinVersion - 1, 0, "too old"},
		{Version + 1, Version + 1, 0, "too new"},
	} {
		got, refused := CommonVersion(&Hello{Version: test.newest, MinVersion: test.oldest})
		if got != test.want || (refused == nil) != (test.sentence == "") {
			t.Errorf("agent %d to %d: %d, %v", test.oldest, test.newest, got, refused)
			continue
		}
		if refused != nil && (refused.Code != RefusedVersion || !strings.Contains(refused.Error(), test.sentence)) {
			t.Errorf("agent %d to %d: %q %q, want %q", test.oldest, test.newest, refused.Code, refused.Text, test.sentence)
		}
	}
}
