//go:build !reference

// Command gitgate keeps local git repositories in step with their forges, by
// webhooks.
package main

import "example.com/converge/pkg/cmdline"

func main() { cmdline.Main(program()) }
