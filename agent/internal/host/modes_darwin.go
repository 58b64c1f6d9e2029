package host

import "golang.org/x/sys/unix"

const (
	getTermios = unix.TIOCGETA
	setTermios = unix.TIOCSETA
	// disabled is the value of a special character that is off.
	disabled = 0xff
)

type flag = uint64

// moreChars and moreFlags are what only this platform has.
var moreChars = map[byte]int{
	11: unix.VDSUSP,
	17: unix.VSTATUS,
}

var moreFlags = map[byte]flagOf{}
