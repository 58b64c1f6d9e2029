package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"golang.org/x/crypto/ssh"
)

// Message numbers of RFC 4253, section 12.
const (
	msgIgnore  = 2
	msgKexInit = 20
	msgNewKeys = 21
)

// maxPacket is the longest packet in bytes, RFC 4253, section 6.1.
const maxPacket = 35000

// kexInit is what an end can do, RFC 4253, section 7.1.
type kexInit struct {
	Cookie                  [16]byte `sshtype:"20"`
	KexAlgos                []string
	HostKeyAlgos            []string
	CiphersClientServer     []string
	CiphersServerClient     []string
	MACsClientServer        []string
	MACsServerClient        []string
	CompressionClientServer []string
	CompressionServerClient []string
	LanguagesClientServer   []string
	LanguagesServerClient   []string
	FirstKexFollows         bool
	Reserved                uint32
}

// edit changes what one end says in the clear, and what follows.
type edit struct {
	kex    func(*kexInit) // nil: nothing
	inject bool           // a packet that means nothing, before NEWKEYS
	tamper bool           // one bit of the first packet after it
}

// rewriter is what is changed of the two directions.
type rewriter struct{ client, agent edit }

func onlyKex(names ...string) edit {
	return edit{kex: func(k *kexInit) { k.KexAlgos = names }}
}

// legacy makes an end look like an old one, with which the other still speaks.
func legacy(k *kexInit) {
	k.KexAlgos = []string{"ecdh-sha2-nistp256"}
	k.CiphersClientServer, k.CiphersServerClient = []string{"aes128-ctr"}, []string{"aes128-ctr"}
	k.MACsClientServer, k.MACsServerClient = []string{"hmac-sha2-256"}, []string{"hmac-sha2-256"}
}

// rewriters are the tricks that change what flows.
var rewriters = map[string]rewriter{
	// What neither end would take.
	"weak-kex":      {agent: onlyKex("diffie-hellman-group1-sha1")},
	"weak-host-key": {agent: edit{kex: func(k *kexInit) { k.HostKeyAlgos = []string{"ssh-dss"} }}},
	"no-cipher": {agent: edit{kex: func(k *kexInit) {
		k.CiphersClientServer, k.CiphersServerClient = []string{"none"}, []string{"none"}
	}}},
	// What both ends would take if each believed that the other knows no more.
	"downgrade": {client: edit{kex: legacy}, agent: edit{kex: legacy}},
	// The first step of cutting packets off unseen (CVE-2023-48795).
	"inject":       {agent: edit{inject: true}},
	"tamper":       {agent: edit{tamper: true}},
	"tamper-input": {client: edit{tamper: true}},
}

// copy moves one direction, and changes it.
func (rewriter) copy(dst net.Conn, src io.Reader, e edit) error {
	if e.kex == nil && !e.inject && !e.tamper {
		return copyBytes(dst, src)
	}
	in := bufio.NewReaderSize(src, maxPacket)
	line, err := in.ReadSlice('\n') // the identification
	if err != nil {
		return err
	}
	if _, err := dst.Write(line); err != nil {
		return err
	}
	for {
		payload, err := readPacket(in)
		if err != nil {
			return err
		}
		switch {
		case payload[0] == msgKexInit && e.kex != nil:
			var k kexInit
			if err := ssh.Unmarshal(payload, &k); err != nil {
				return fmt.Errorf("cannot read what an end can do: %w", err)
			}
			e.kex(&k)
			payload = ssh.Marshal(&k)
		case payload[0] == msgNewKeys && e.inject:
			if err := writePacket(dst, []byte{msgIgnore, 0, 0, 0, 0}); err != nil {
				return err
			}
		}
		if err := writePacket(dst, payload); err != nil {
			return err
		}
		if payload[0] != msgNewKeys {
			continue
		}
		if e.tamper {
			// Behind the length, which AES-GCM leaves in the clear.
			sealed := make([]byte, 16)
			if _, err := io.ReadFull(in, sealed); err != nil {
				return err
			}
			sealed[9] ^= 1
			if _, err := dst.Write(sealed); err != nil {
				return err
			}
		}
		return copyBytes(dst, in)
	}
}

// readPacket reads a packet in the clear, RFC 4253, section 6.
func readPacket(in io.Reader) (payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	length, padding := binary.BigEndian.Uint32(head[:4]), uint32(head[4])
	if length > maxPacket || length < padding+2 {
		return nil, fmt.Errorf("a packet of %d bytes with %d of padding", length, padding)
	}
	rest := make([]byte, length-1)
	if _, err := io.ReadFull(in, rest); err != nil {
		return nil, err
	}
	return rest[:len(rest)-int(padding)], nil
}

// writePacket writes one.
func writePacket(out io.Writer, payload []byte) error {
	padding := 8 - (5+len(payload))%8
	if padding < 4 {
		padding += 8
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	packet = append(append(append(packet, byte(padding)), payload...), make([]byte, padding)...)
	_, err := out.Write(packet)
	return err
}
