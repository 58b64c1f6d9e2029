//go:build !linux

package pipe

import (
	"io"
	"os"
)

func reopen(*os.File, int) io.ReadWriter { return nil }
