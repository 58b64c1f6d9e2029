//go:build reference

package main

import "example.com/converge/pkg/clidoc"

// Built with the tag reference, the program documents itself and does nothing
// else.
func main() { clidoc.Main(program()) }
