//go:build linux

package sftpd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pkg/sftp"
)

// rawSFTP speaks the protocol to a server behind the filter.
type rawSFTP struct {
	t      *testing.T
	dir    string
	client net.Conn
	served chan error
	lastID uint32
}

func newRawSFTP(t *testing.T, readOnly bool) *rawSFTP {
	t.Helper()
	r := &rawSFTP{t: t, dir: t.TempDir(), served: make(chan error, 1)}
	var far net.Conn
	r.client, far = net.Pipe()
	options := []sftp.ServerOption{
		sftp.WithAllocator(), sftp.WithMaxTxPacket(maxData), sftp.WithServerWorkingDirectory(r.dir),
	}
	if readOnly {
		options = append(options, sftp.ReadOnly())
	}
	server, err := sftp.NewServer(newFilter(far, r.dir, readOnly), options...)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		r.served <- server.Serve()
		far.Close()
	}()
	t.Cleanup(func() {
		r.client.Close()
		<-r.served
	})
	return r
}

// end waits for the end of the server and returns why it ended.
func (r *rawSFTP) end() error {
	err := <-r.served
	r.served <- nil
	return err
}

// packet is a request: numbers are uint32 or uint64, texts have their length.
func packet(kind byte, fields ...any) []byte {
	b := append(make([]byte, 4), kind)
	for _, field := range fields {
		switch field := field.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(field))
		case uint32:
			b = binary.BigEndian.AppendUint32(b, field)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, field)
		case string:
			b = appendText(b, field)
		default:
			panic(fmt.Sprintf("%T", field))
		}
	}
	return framed(b)
}

// send writes beside the test: the pipe has no buffer.
func (r *rawSFTP) send(packets ...[]byte) {
	go func() { _, _ = r.client.Write(bytes.Join(packets, nil)) }()
}

// next reads an answer: its type, and the rest.
func (r *rawSFTP) next() (kind byte, rest cursor) {
	r.t.Helper()
	head := make([]byte, 5)
	if _, err := io.ReadFull(r.client, head); err != nil {
		r.t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head)-1)
	if _, err := io.ReadFull(r.client, body); err != nil {
		r.t.Fatal(err)
	}
	return head[4], cursor{rest: body}
}

// ask sends a request with an id of its own and reads the answer after it.
func (r *rawSFTP) ask(kind byte, fields ...any) (byte, cursor) {
	r.t.Helper()
	r.lastID++
	r.send(packet(kind, append([]any{r.lastID}, fields...)...))
	answer, rest := r.next()
	if id := rest.number(); id != r.lastID {
		r.t.Fatalf("answer to %d, want %d", id, r.lastID)
	}
	return answer, rest
}

// status asks for something whose answer is a status.
func (r *rawSFTP) status(kind byte, fields ...any) (code uint32, text string) {
	r.t.Helper()
	answer, rest := r.ask(kind, fields...)
	if answer != fxpStatus {
		r.t.Fatalf("answer of type %d, want a status", answer)
	}
	return rest.number(), rest.text()
}

// open opens a file (flags as in §6.3) and returns its handle.
func (r *rawSFTP) open(name string, flags int) string {
	r.t.Helper()
	answer, rest := r.ask(fxpOpen, name, flags, 0)
	if answer != fxpHandle {
		r.t.Fatalf("open %s: answer of type %d", name, answer)
	}
	return rest.text()
}

const (
	forReading = 0x01
	forWriting = 0x02 | 0x08 // and creating
)

func TestSFTPVersionAndLimits(t *testing.T) {
	r := newRawSFTP(t, false)
	r.send(packet(fxpInit, 3))
	kind, rest := r.next()
	if version := rest.number(); kind != fxpVersion || version != 3 {
		t.Fatalf("type %d, version %d", kind, version)
	}
	got := map[string]string{}
	for len(rest.rest) > 0 && !rest.failed {
		name := rest.text()
		got[name] = rest.text()
	}
	for name, version := range map[string]string{
		extLimits: "1", extFsync: "1", extStatVFS: "2", "posix-rename@openssh.com": "1", "hardlink@openssh.com": "1",
	} {
		if got[name] != version {
			t.Errorf("%s has version %q, want %q", name, got[name], version)
		}
	}
	kind, rest = r.ask(fxpExtended, extLimits)
	want := binary.BigEndian.AppendUint64(nil, 256<<10)
	want = binary.BigEndian.AppendUint64(want, 255<<10)
	want = binary.BigEndian.AppendUint64(want, 255<<10)
	want = binary.BigEndian.AppendUint64(want, maxHandles)
	if kind != fxpExtendedReply || !bytes.Equal(rest.rest, want) {
		t.Errorf("type %d, %x", kind, rest.rest)
	}
}

// Packets of the greatest length go both ways.
func TestSFTPLargestPackets(t *testing.T) {
	r := newRawSFTP(t, false)
	text := noise(maxData, 8)
	h := r.open("file", forWriting|forReading)
	if code, why := r.status(fxpWrite, h, uint64(0), string(text)); code != fxOK {
		t.Fatal(code, why)
	}
	const fxpRead, fxpData = 5, 103
	kind, rest := r.ask(fxpRead, h, uint64(0), maxData)
	if got := rest.text(); kind != fxpData || got != string(text) {
		t.Errorf("type %d, %d bytes", kind, len(got))
	}
}

func TestSFTPFsync(t *testing.T) {
	r := newRawSFTP(t, false)
	h := r.open("file", forWriting)
	// Without waiting for the answers: what comes before is written first.
	r.send(packet(fxpWrite, 100, h, uint64(0), "text"), packet(fxpExtended, 101, extFsync, h))
	for id := range uint32(2) {
		kind, rest := r.next()
		if got, code := rest.number(), rest.number(); kind != fxpStatus || got != 100+id || code != fxOK {
			t.Fatalf("type %d, id %d, status %d", kind, got, code)
		}
	}
	if code, _ := r.status(fxpExtended, extFsync, "no handle"); code != fxFailure {
		t.Errorf("unknown handle: %d", code)
	}
	if err := os.Rename(filepath.Join(r.dir, "file"), filepath.Join(r.dir, "moved")); err != nil {
		t.Fatal(err)
	}
	if code, _ := r.status(fxpExtended, extFsync, h); code != fxNoSuchFile {
		t.Errorf("gone: %d", code)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, why := r.status(fxpExtended, extFsync, h); code != fxFailure || why != errMoved.Error() {
		t.Errorf("another file: %d %q", code, why)
	}
	if code, _ := r.status(fxpClose, h); code != fxOK {
		t.Errorf("close: %d", code)
	}
	if code, _ := r.status(fxpExtended, extFsync, h); code != fxFailure {
		t.Errorf("closed: %d", code)
	}
	_, rest := r.ask(fxpOpendir, ".")
	if code, _ := r.status(fxpExtended, extFsync, rest.text()); code != fxFailure {
		t.Errorf("folder: %d", code)
	}
}

func TestSFTPNames(t *testing.T) {
	r := newRawSFTP(t, false)
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, why := r.status(fxpRename, "a", "b"); code != fxFailure || !strings.Contains(why, "new name") {
		t.Errorf("rename over a file: %d %q", code, why)
	}
	if code, _ := r.status(fxpRename, "missing", "b"); code != fxNoSuchFile {
		t.Errorf("rename of nothing: %d", code)
	}
	if code, why := r.status(fxpRename, "a", "c"); code != fxOK {
		t.Errorf("rename: %d %q", code, why)
	}
	if code, why := r.status(fxpExtended, "posix-rename@openssh.com", "c", "b"); code != fxOK {
		t.Errorf("posix-rename: %d %q", code, why)
	}
	if text, err := os.ReadFile(filepath.Join(r.dir, "b")); err != nil || string(text) != "a" {
		t.Errorf("%q %v", text, err)
	}
	if code, _ := r.status(fxpSymlink, "x", "b"); code != fxFailure {
		t.Errorf("link over a file: %d", code)
	}
	// A relative path is that of the server's folder, not of the process.
	if kind, _ := r.ask(fxpExtended, extStatVFS, "b"); kind != fxpExtendedReply {
		t.Errorf("statvfs: type %d", kind)
	}
	if code, _ := r.status(fxpExtended, extStatVFS, "sftpfilter_test.go"); code != fxNoSuchFile {
		t.Errorf("statvfs of a file of the process's folder: %d", code)
	}
}

// A pipe that nobody opens on its other end would keep the server for ever.
func TestSFTPNamedPipe(t *testing.T) {
	r := newRawSFTP(t, false)
	if err := syscall.Mkfifo(filepath.Join(r.dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, why := r.status(fxpOpen, "pipe", forReading, 0); code != fxFailure || !strings.Contains(why, "pipe") {
		t.Errorf("%d %q", code, why)
	}
}

func TestSFTPUnknownAndMalformed(t *testing.T) {
	r := newRawSFTP(t, false)
	for _, kind := range []byte{0, 2, 21, 99, fxpStatus, fxpExtendedReply, 255} {
		if code, _ := r.status(kind, "anything"); code != fxOpUnsupported {
			t.Errorf("type %d: %d", kind, code)
		}
	}
	if code, _ := r.status(fxpExtended, "copy-data"); code != fxOpUnsupported {
		t.Errorf("unknown extension: %d", code)
	}
	for _, fields := range [][]any{{}, {"x"}, {1 << 30}} {
		if code, _ := r.status(fxpSymlink, fields...); code != fxBadMessage {
			t.Errorf("%v: %d", fields, code)
		}
	}
	if code, _ := r.status(fxpExtended, extFsync); code != fxBadMessage {
		t.Errorf("fsync without handle: %d", code)
	}
}

// Read-only means every request that changes something.
func TestSFTPReadOnlyRequests(t *testing.T) {
	r := newRawSFTP(t, true)
	if err := os.WriteFile(filepath.Join(r.dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := r.open("file", forReading)
	before := tree(t, r.dir)
	const setstat, fsetstat, remove, mkdir, rmdir = 9, 10, 13, 14, 15
	for name, request := range map[string][]any{
		"open to write": {byte(fxpOpen), "file", 0x02, 0}, "open to create": {byte(fxpOpen), "new", 0x09, 0},
		"open to cut": {byte(fxpOpen), "file", 0x11, 0}, "write": {byte(fxpWrite), h, uint64(0), "x"},
		"setstat": {byte(setstat), "file", 1, uint64(0)}, "fsetstat": {byte(fsetstat), h, 1, uint64(0)},
		"remove": {byte(remove), "file"}, "mkdir": {byte(mkdir), "new", 0}, "rmdir": {byte(rmdir), "."},
		"rename": {byte(fxpRename), "file", "new"}, "symlink": {byte(fxpSymlink), "file", "new"},
		"posix-rename": {byte(fxpExtended), "posix-rename@openssh.com", "file", "new"},
		"hardlink":     {byte(fxpExtended), "hardlink@openssh.com", "file", "new"},
		"fsync":        {byte(fxpExtended), extFsync, h},
	} {
		if code, why := r.status(request[0].(byte), request[1:]...); code != fxPermissionDenied {
			t.Errorf("%s: %d %q", name, code, why)
		}
	}
	if after := tree(t, r.dir); after != before {
		t.Errorf("the folder has changed:\n%s\n%s", before, after)
	}
}
