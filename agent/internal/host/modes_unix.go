//go:build linux || darwin

package host

import (
	"maps"

	"golang.org/x/sys/unix"

	"example.com/converge/agent/internal/backend"
)

// group says which word of a termios a flag is in.
type group int

const (
	inputFlag group = iota
	outputFlag
	controlFlag
	localFlag
)

// flagOf is one flag of a termios.
type flagOf struct {
	group group
	mask  flag
}

// chars maps opcodes to special characters (RFC 4254 §8).
var chars = map[byte]int{
	1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL,
	5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2, 8: unix.VSTART,
	9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE,
	14: unix.VLNEXT, 18: unix.VDISCARD,
}

// flags maps opcodes to flags (RFC 4254 §8; 42 is of RFC 8160). The character
// sizes 90 and 91 are apart. The speeds 128 and 129 are not set: a terminal
// without a line has none.
var flags = map[byte]flagOf{
	30: {inputFlag, unix.IGNPAR}, 31: {inputFlag, unix.PARMRK},
	32: {inputFlag, unix.INPCK}, 33: {inputFlag, unix.ISTRIP},
	34: {inputFlag, unix.INLCR}, 35: {inputFlag, unix.IGNCR},
	36: {inputFlag, unix.ICRNL}, 38: {inputFlag, unix.IXON},
	39: {inputFlag, unix.IXANY}, 40: {inputFlag, unix.IXOFF},
	41: {inputFlag, unix.IMAXBEL}, 42: {inputFlag, unix.IUTF8},
	50: {localFlag, unix.ISIG}, 51: {localFlag, unix.ICANON},
	53: {localFlag, unix.ECHO}, 54: {localFlag, unix.ECHOE},
	55: {localFlag, unix.ECHOK}, 56: {localFlag, unix.ECHONL},
	57: {localFlag, unix.NOFLSH}, 58: {localFlag, unix.TOSTOP},
	59: {localFlag, unix.IEXTEN}, 60: {localFlag, unix.ECHOCTL},
	61: {localFlag, unix.ECHOKE}, 62: {localFlag, unix.PENDIN},
	70: {outputFlag, unix.OPOST}, 72: {outputFlag, unix.ONLCR},
	73: {outputFlag, unix.OCRNL}, 74: {outputFlag, unix.ONOCR},
	75: {outputFlag, unix.ONLRET},
	92: {controlFlag, unix.PARENB}, 93: {controlFlag, unix.PARODD},
}

func init() {
	maps.Copy(chars, moreChars)
	maps.Copy(flags, moreFlags)
}

// setModes changes a terminal as a client asks. What the platform does not
// know is left alone.
func setModes(fd int, modes []backend.Mode) error {
	if len(modes) == 0 {
		return nil
	}
	t, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return err
	}
	for _, m := range modes {
		applyMode(t, m)
	}
	return unix.IoctlSetTermios(fd, setTermios, t)
}

// applyMode changes one thing.
func applyMode(t *unix.Termios, m backend.Mode) {
	if at, ok := chars[m.Code]; ok {
		char := byte(m.Value)
		if m.Value == 255 { // RFC 4254 §8: there is no such character
			char = disabled
		}
		t.Cc[at] = char
		return
	}
	switch m.Code {
	case 90, 91:
		if m.Value != 0 {
			t.Cflag &^= unix.CSIZE
			t.Cflag |= map[byte]flag{90: unix.CS7, 91: unix.CS8}[m.Code]
		}
		return
	}
	f, ok := flags[m.Code]
	if !ok {
		return
	}
	word := map[group]*flag{
		inputFlag: &t.Iflag, outputFlag: &t.Oflag, controlFlag: &t.Cflag, localFlag: &t.Lflag,
	}[f.group]
	*word &^= f.mask
	if m.Value != 0 {
		*word |= f.mask
	}
}
