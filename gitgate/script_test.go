package main

import (
	"testing"

	"example.com/converge/pkg/clitest"
)

// TestScripts runs testdata/script: what gitgate says before it serves.
func TestScripts(t *testing.T) { clitest.Run(t, nil, nil) }
