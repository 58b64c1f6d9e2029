//go:build linux

package child

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"example.com/converge/bench/carrier"
)

// Requests to the raw far end: one byte, and the number of bytes in eight,
// big-endian.
const (
	opUpload   = 'u' // that many bytes follow; answered by one byte
	opDownload = 'd' // answered by that many bytes
)

// Raw is the far end that takes and gives bytes without meaning. It serves one
// request after the other until the connection ends.
func Raw(conn net.Conn) {
	var header [9]byte
	buf := make([]byte, carrier.Chunk)
	for {
		if _, err := io.ReadFull(conn, header[:]); err != nil {
			return
		}
		n := int64(binary.BigEndian.Uint64(header[1:]))
		var err error
		switch header[0] {
		case opUpload:
			if err = drain(conn, n, buf); err == nil {
				_, err = conn.Write(header[:1])
			}
		case opDownload:
			err = pour(conn, n, buf)
		default:
			err = errors.New("unknown request")
		}
		if err != nil {
			return
		}
	}
}

// Upload sends n bytes to Raw and returns when all of them have arrived.
func Upload(conn net.Conn, n int64) error {
	if err := request(conn, opUpload, n); err != nil {
		return err
	}
	if err := pour(conn, n, make([]byte, carrier.Chunk)); err != nil {
		return err
	}
	var answer [1]byte
	_, err := io.ReadFull(conn, answer[:])
	return err
}

// Download asks Raw for n bytes and returns when all of them are here.
func Download(conn net.Conn, n int64) error {
	if err := request(conn, opDownload, n); err != nil {
		return err
	}
	return drain(conn, n, make([]byte, carrier.Chunk))
}

func request(conn net.Conn, op byte, n int64) error {
	header := binary.BigEndian.AppendUint64([]byte{op}, uint64(n))
	_, err := conn.Write(header)
	return err
}

// pour writes n bytes.
func pour(conn net.Conn, n int64, buf []byte) error {
	for n > 0 {
		wrote, err := conn.Write(buf[:min(n, int64(len(buf)))])
		if err != nil {
			return err
		}
		n -= int64(wrote)
	}
	return nil
}

// drain reads n bytes.
func drain(conn net.Conn, n int64, buf []byte) error {
	for n > 0 {
		got, err := conn.Read(buf[:min(n, int64(len(buf)))])
		n -= int64(got)
		if err != nil && n > 0 {
			return fmt.Errorf("%d bytes are missing: %w", n, err)
		}
	}
	return nil
}
