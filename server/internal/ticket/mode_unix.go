//go:build unix

package ticket

import "io/fs"

// exposed reports whether accounts that it should not be can get at a file.
// The group may read it: secrets that a container is given are often the
// group's.
func exposed(info fs.FileInfo) bool { return info.Mode().Perm()&0o027 != 0 }
