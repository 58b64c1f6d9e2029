package cmdline

import "example.com/converge/pkg/version"

// Version returns the version of the program, as package version knows it.
func Version() string { return version.String() }
