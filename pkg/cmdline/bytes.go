package cmdline

import (
	"math/bits"
	"strconv"
	"strings"
)

// byteUnits are the suffixes of sizes, as powers of 1024.
var byteUnits = []string{"KiB", "MiB", "GiB"}

// Bytes reads an option that is a size, such as 512KiB, 4MiB or 65536, and
// must lie within the limits, in bytes; int64 is for what may be more than 2 GiB,
// which an int of 32 bits cannot hold. The error is a usage error.
func Bytes[T int | int64](in *Invocation, name string, least, most T) (T, error) {
	text := in.String(name)
	if n, ok := parseBytes(text); ok && n >= uint64(least) && n <= uint64(most) {
		return T(n), nil
	}
	return 0, Usagef("--%s is %q: it must be a size from %s to %s", name, text, formatBytes(int64(least)), formatBytes(int64(most)))
}

// parseBytes reads a whole number with a unit, of any case, or without one.
func parseBytes(s string) (uint64, bool) {
	factor := uint64(1)
	for i, unit := range byteUnits {
		if number := len(s) - len(unit); number > 0 && strings.EqualFold(s[number:], unit) {
			s, factor = s[:number], 1<<(10*(i+1))
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	over, product := bits.Mul64(n, factor)
	return product, err == nil && over == 0
}

// formatBytes writes a size in the largest unit in which it is whole.
func formatBytes(n int64) string {
	unit := ""
	for _, u := range byteUnits {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return strconv.FormatInt(n, 10) + unit
}
