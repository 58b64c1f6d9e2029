//go:build !reference

// Command dispatch is continuous integration on Nomad: webhooks become dispatched
// jobs, their ends commit statuses, and a failed build a debug session.
package main

import "example.com/converge/pkg/cmdline"

func main() { cmdline.Main(program()) }
