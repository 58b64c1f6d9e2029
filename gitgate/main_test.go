package main

import (
	"testing"
	"time"

	"example.com/converge/pkg/clitest"
)

// patience bounds every wait for an event; it decides no test that is right.
const patience = 2 * time.Minute

// TestMain puts gitgate on the PATH.
func TestMain(m *testing.M) {
	clitest.Main(m, map[string]func(){"gitgate": main})
}
