//go:build !unix

package ticket

import "io/fs"

// exposed cannot say anything: the mode is not what protects a file here.
func exposed(fs.FileInfo) bool { return false }
