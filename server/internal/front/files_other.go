//go:build !unix

package front

// FileLimit returns 0, no limit: handles are not counted here.
func FileLimit() uint64 { return 0 }
