package host

import "golang.org/x/sys/unix"

const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
	// disabled is the value of a special character that is off.
	disabled = 0
)

type flag = uint32

// moreChars and moreFlags are what only this platform has.
var moreChars = map[byte]int{
	16: unix.VSWTC,
}

var moreFlags = map[byte]flagOf{
	37: {inputFlag, unix.IUCLC},
	52: {localFlag, unix.XCASE},
	71: {outputFlag, unix.OLCUC},
}
