package main

import (
	"testing"

	"example.com/converge/pkg/clitest"
)

// TestMain puts dispatch on the PATH.
func TestMain(m *testing.M) {
	clitest.Main(m, map[string]func(){"dispatch": main})
}
