package sshd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/backend"
)

// Limits of what a client asks for.
const (
	// maxTerm bounds the name of a terminal type, in bytes.
	maxTerm = 64
	// maxModes bounds the number of terminal modes; RFC 4254 §8 names 56.
	maxModes = 256
)

// errMalformed is a request that cannot be read.
var errMalformed = errors.New("malformed request")

// parsePty reads a pty-req (RFC 4254 §6.2).
func parsePty(payload []byte) (backend.Terminal, error) {
	var m struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}
	if ssh.Unmarshal(payload, &m) != nil {
		return backend.Terminal{}, errMalformed
	}
	if len(m.Term) > maxTerm || strings.IndexFunc(m.Term, notPrintable) >= 0 {
		return backend.Terminal{}, errMalformed
	}
	modes, err := parseModes([]byte(m.Modes))
	if err != nil {
		return backend.Terminal{}, err
	}
	return backend.Terminal{Term: m.Term, Size: newSize(m.Cols, m.Rows, m.Width, m.Height), Modes: modes}, nil
}

// parseModes reads encoded terminal modes (RFC 4254 §8): pairs of an opcode
// and a number, up to opcode 0 or the end. Opcodes from 160 on are undefined,
// and reading stops there. Of modes that come twice the last counts.
func parseModes(text []byte) ([]backend.Mode, error) {
	var modes []backend.Mode
	for len(text) > 0 && text[0] != 0 && text[0] < 160 {
		if len(text) < 5 || len(modes) == maxModes {
			return nil, errMalformed
		}
		modes = append(modes, backend.Mode{Code: text[0], Value: binary.BigEndian.Uint32(text[1:])})
		text = text[5:]
	}
	return modes, nil
}

// parseSize reads a window-change (RFC 4254 §6.7).
func parseSize(payload []byte) (backend.Size, error) {
	var m struct{ Cols, Rows, Width, Height uint32 }
	if ssh.Unmarshal(payload, &m) != nil {
		return backend.Size{}, errMalformed
	}
	return newSize(m.Cols, m.Rows, m.Width, m.Height), nil
}

// newSize fits the numbers of the protocol into those of a terminal.
func newSize(cols, rows, width, height uint32) backend.Size {
	fit := func(n uint32) uint16 { return uint16(min(n, math.MaxUint16)) }
	return backend.Size{Cols: fit(cols), Rows: fit(rows), Width: fit(width), Height: fit(height)}
}

// parseString reads a request that is one string: exec, subsystem (RFC 4254
// §6.5) and signal (§6.9).
func parseString(payload []byte) (string, error) {
	var m struct{ Value string }
	if ssh.Unmarshal(payload, &m) != nil {
		return "", errMalformed
	}
	return m.Value, nil
}

// parseEnv reads an env (RFC 4254 §6.4).
func parseEnv(payload []byte) (name, value string, err error) {
	var m struct{ Name, Value string }
	if ssh.Unmarshal(payload, &m) != nil {
		return "", "", errMalformed
	}
	return m.Name, m.Value, nil
}

// signalNames are those that RFC 4254 §6.10 knows.
var signalNames = []string{
	"ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL",
	"PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2",
}

// exitRequest returns the request that reports an outcome (RFC 4254 §6.10).
func exitRequest(o backend.Outcome) (name string, payload []byte) {
	if o.Signal == "" {
		return "exit-status", ssh.Marshal(struct{ Status uint32 }{o.Status})
	}
	signal := o.Signal
	if !slices.Contains(signalNames, signal) {
		// Other names carry a domain; this one is what clients know.
		signal = "SIG@openssh.com"
	}
	return "exit-signal", ssh.Marshal(struct {
		Signal         string
		Core           bool
		Text, Language string
	}{signal, o.Core, fmt.Sprintf("killed by signal %s", o.Signal), "en"})
}

// notPrintable is true for what a terminal could take for a command.
func notPrintable(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r == '\ufffd'
}

// crlf prepares a text for a terminal in raw mode.
func crlf(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
}

// wallText is a message as a terminal shows it on lines of its own.
func wallText(text string) string {
	text = strings.Map(func(r rune) rune {
		if r != '\n' && notPrintable(r) {
			return '?'
		}
		return r
	}, strings.ReplaceAll(strings.Trim(text, "\r\n"), "\r\n", "\n"))
	return "\r\n" + crlf(text) + "\r\n"
}

// printable replaces what a terminal could take for a command.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if notPrintable(r) {
			return '?'
		}
		return r
	}, text)
}
