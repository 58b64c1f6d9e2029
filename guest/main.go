//go:build !reference

// Command guest stands inside of a container's image and gives an SSH front end what
// a container engine's exec has not. What it does is in package guest of the module
// container.
package main

import (
	"os"

	"example.com/converge/container/guest"
)

// USAGE.md is the text that -h prints.
//go:generate go run generate.go

func main() {
	os.Exit(guest.Run("guest", os.Args[min(1, len(os.Args)):], os.Stdin, os.Stdout, os.Stderr))
}
