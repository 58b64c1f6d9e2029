package forward

import (
	"encoding/binary"
	"io"
	"net"
	"time"

	"example.com/converge/pkg/transport"
)

// Numbers of RFC 4253, section 11.1.
const (
	msgDisconnect         = 1
	disconnectUnavailable = 7 // SSH_DISCONNECT_SERVICE_NOT_AVAILABLE
)

// drainWait bounds drain, and the write before it. A client that is told the
// end closes at once; only one that reads slowly and goes on sending needs it.
const drainWait = 10 * time.Second

// sayInSSH tells an ssh client why there is no connection: a TCP client sees
// no HTTP status, but before keys are exchanged SSH sends packets in the clear
// and a client shows the text of a disconnect message. Errors do not matter.
func sayInSSH(conn net.Conn, text string) {
	_ = conn.SetDeadline(time.Now().Add(drainWait))
	if _, err := conn.Write(append([]byte("SSH-2.0-Converge\r\n"), disconnectPacket(transport.Printable(text))...)); err != nil {
		return
	}
	drain(conn)
}

// drain ends our direction and takes what the client still sends, for a while:
// closing with unread input would reset the connection, and what was written
// last might be lost.
func drain(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(drainWait))
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, conn)
}

// disconnectPacket is an unencrypted binary packet (RFC 4253, section 6) with
// a disconnect message.
func disconnectPacket(text string) []byte {
	payload := []byte{msgDisconnect}
	payload = binary.BigEndian.AppendUint32(payload, disconnectUnavailable)
	payload = binary.BigEndian.AppendUint32(payload, uint32(len(text)))
	payload = append(payload, text...)
	payload = binary.BigEndian.AppendUint32(payload, 0) // language tag
	padding := 8 - (5+len(payload))%8
	if padding < 4 {
		padding += 8
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	packet = append(packet, byte(padding))
	packet = append(packet, payload...)
	return append(packet, make([]byte, padding)...)
}
