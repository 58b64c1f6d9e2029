//go:build ignore

// Writes USAGE.md, which is the text that -h prints.
package main

import (
	"fmt"
	"os"

	"example.com/converge/container/guest"
)

func main() {
	if err := os.WriteFile("USAGE.md", []byte(guest.Usage), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
