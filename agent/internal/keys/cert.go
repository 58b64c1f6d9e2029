package keys

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/transport"
)

// The critical option of user certificates that is kept, and the extensions
// without which something is refused (OpenSSH's PROTOCOL.certkeys). What x/crypto
// knows itself, no-touch-required, is not among them.
const (
	forceCommand          = "force-command"
	permitPTY             = "permit-pty"
	permitPortForwarding  = "permit-port-forwarding"
	permitAgentForwarding = "permit-agent-forwarding"
)

// signatures are the formats in which an authority may have signed: no SHA-1.
var signatures = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512,
}

// authorities are those whose certificates let in.
type authorities struct {
	literals   []entry
	files      []*keyFile
	principals []string
	now        func() time.Time
}

// readAuthorities reads files and literals, told apart by the blank that only
// a key has, and a file's name with a key's type before it never.
func (s *Set) readAuthorities(values, principals []string) (*authorities, error) {
	if len(values) == 0 {
		return nil, nil
	}
	a := &authorities{principals: principals, now: time.Now}
	var literals, files []string
	for _, value := range values {
		if kind, rest, ok := strings.Cut(strings.TrimSpace(value), " "); ok && rest != "" && isKeyType(kind) {
			literals = append(literals, value)
		} else {
			files = append(files, value)
		}
	}
	var err error
	if a.literals, err = s.readLiterals("certificate authority", literals); err != nil {
		return nil, err
	}
	if len(files) == 0 && len(a.literals) == 0 {
		return nil, errors.New("no key of --trusted-user-ca is accepted: give an Ed25519, ECDSA or RSA key of at least 2048 bits, without options")
	}
	if a.files, err = s.readFiles(files); err != nil {
		return nil, fmt.Errorf("cannot use the certificate authorities: %w", err)
	}
	return a, nil
}

// isKeyType reports whether a word looks like a type of public keys.
func isKeyType(word string) bool {
	return strings.HasPrefix(word, "ssh-") || strings.HasPrefix(word, "ecdsa-sha2-") || strings.HasPrefix(word, "sk-")
}

// certificate judges a user certificate. The caller holds mu.
func (s *Set) certificate(user string, cert *ssh.Certificate) (Grant, bool) {
	a := s.authorities
	if a == nil || cert.SignatureKey == nil || cert.Signature == nil {
		return Grant{}, false
	}
	sum := Sum(cert.SignatureKey)
	known, _ := compare(a.literals, sum)
	for _, f := range a.files {
		s.refresh(f)
		inFile, _ := compare(f.keys, sum)
		known |= inFile
	}
	if known != 1 {
		return Grant{}, false
	}
	grant, err := a.check(user, cert)
	if err != nil {
		// Whoever holds it has to learn why; nothing of it is verified yet.
		s.log.Info("a certificate is not accepted", "key_id", printable(cert.KeyId), "serial", cert.Serial, "reason", printable(err.Error()))
		return Grant{}, false
	}
	return grant, true
}

// check says why a certificate of a known authority does not let in, or what
// it may do.
func (a *authorities) check(user string, cert *ssh.Certificate) (Grant, error) {
	principals := a.principals
	if len(principals) == 0 {
		principals = []string{user}
	}
	if cert.CertType != ssh.UserCert {
		return Grant{}, errors.New("it is none for users")
	}
	if why := unfit(cert.Key); why != "" {
		return Grant{}, fmt.Errorf("its key is %s", why)
	}
	if !slices.Contains(signatures, cert.Signature.Format) {
		return Grant{}, fmt.Errorf("it is signed with %s", cert.Signature.Format)
	}
	// The library takes a certificate without principals for one of everybody.
	at := slices.IndexFunc(principals, func(p string) bool {
		return p != "" && slices.Contains(cert.ValidPrincipals, p)
	})
	if at < 0 {
		return Grant{}, fmt.Errorf("none of its principals is %s", strings.Join(principals, " or "))
	}
	// source-address is not among the options that are kept: the agent knows
	// where a client comes from only by the word of the server.
	checker := ssh.CertChecker{SupportedCriticalOptions: []string{forceCommand}, Clock: a.now}
	if err := checker.CheckCert(principals[at], cert); err != nil {
		return Grant{}, err
	}
	command, forced := cert.CriticalOptions[forceCommand]
	if forced && (strings.TrimSpace(command) == "" || strings.IndexByte(command, 0) >= 0) {
		return Grant{}, errors.New("its force-command is empty or has a NUL in it")
	}
	lacks := func(extension string) bool {
		_, ok := cert.Extensions[extension]
		return !ok
	}
	return Grant{
		Owner:             fmt.Sprintf("certificate %q, serial %d, of %s", printable(cert.KeyId), cert.Serial, ssh.FingerprintSHA256(cert.SignatureKey)),
		ForceCommand:      command,
		NoPTY:             lacks(permitPTY),
		NoPortForwarding:  lacks(permitPortForwarding),
		NoAgentForwarding: lacks(permitAgentForwarding),
	}, nil
}

// printable bounds what a stranger can put in the log.
func printable(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return transport.Printable(s)
}
