package sshd

import (
	"runtime"
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

// What the server can do. In SSH the client's order decides (RFC 4253 §7.1),
// so that these lists say what is possible and not what is preferred: the
// server steers by what it leaves out. The older ones are sound, but are for
// clients that know nothing newer, such as those in FIPS mode.
var (
	modernKex = []string{
		ssh.KeyExchangeMLKEM768X25519,
		ssh.KeyExchangeCurve25519, // the @libssh.org name comes with it
	}
	olderKex = []string{
		ssh.KeyExchangeECDHP256,
		ssh.KeyExchangeECDHP384,
		ssh.KeyExchangeECDHP521,
	}
	gcm = []string{
		ssh.CipherAES128GCM,
		ssh.CipherAES256GCM,
	}
	chacha = []string{
		ssh.CipherChaCha20Poly1305,
	}
	ctr = []string{
		ssh.CipherAES128CTR,
		ssh.CipherAES192CTR,
		ssh.CipherAES256CTR,
	}
	modernMACs = []string{
		ssh.HMACSHA256ETM,
		ssh.HMACSHA512ETM,
	}
	olderMACs = []string{
		ssh.HMACSHA256,
		ssh.HMACSHA512,
	}
)

// curveLibSSH is the name that curve25519-sha256 had first.
const curveLibSSH = "curve25519-sha256@libssh.org"

// offer is what the server proposes to one client.
type offer struct {
	kex, ciphers, macs []string
}

// fullOffer is all that the server can do.
func fullOffer() offer {
	return offer{
		kex:     slices.Concat(modernKex, olderKex),
		ciphers: slices.Concat(gcm, chacha, ctr),
		macs:    slices.Concat(modernMACs, olderMACs),
	}
}

// offerFor leaves out what a client would better not take, where it can do
// something that is better: of key exchanges and MACs the older ones; of
// ciphers those that this machine is slow at, since OpenSSH asks for chacha20
// first even where the hardware has AES, which AES-GCM makes twice as fast. A
// client that can agree with fullOffer can agree with what is left of it. A
// nil proposal is one that is not known.
func offerFor(p *proposal, hasAES bool) offer {
	full := fullOffer()
	if p == nil {
		return full
	}
	o := full
	if slices.Contains(p.KexAlgorithms, curveLibSSH) || common(p.KexAlgorithms, modernKex) {
		o.kex = modernKex
	}
	fast := chacha
	if hasAES {
		fast = gcm
	}
	if common(p.EncryptionClientServer, fast) && common(p.EncryptionServerClient, fast) {
		o.ciphers = fast
	}
	if common(p.MACClientServer, modernMACs) && common(p.MACServerClient, modernMACs) {
		o.macs = modernMACs
	}
	return o
}

// common reports whether two lists have a name in common.
func common(a, b []string) bool {
	return slices.ContainsFunc(a, func(name string) bool { return slices.Contains(b, name) })
}

// machineHasAES is hasAES of this machine.
var machineHasAES = hasAES()

// hasAES reports whether this machine has instructions for AES and for the
// multiplication that GCM needs. Without them Go's AES-GCM is many times
// slower than chacha20.
func hasAES() bool {
	switch runtime.GOARCH {
	case "amd64", "386":
		return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ
	case "arm64":
		return cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
	case "s390x":
		return cpu.S390X.HasAES && cpu.S390X.HasAESGCM
	case "ppc64", "ppc64le":
		return true // since POWER8, which Go asks for
	}
	return false
}
