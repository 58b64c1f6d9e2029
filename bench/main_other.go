//go:build !linux

// Command bench measures Converge beside its peers. It asks Linux for CPU time
// and memory, and does not run elsewhere.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: it measures on Linux only: run it there")
	os.Exit(1)
}
