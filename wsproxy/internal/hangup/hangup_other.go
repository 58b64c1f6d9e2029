//go:build !unix

package hangup

import "os"

func watch(*os.File, chan<- struct{}) (release func()) { return func() {} }
