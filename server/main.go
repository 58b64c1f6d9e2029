//go:build !reference

// Command server is the rendezvous: agents register with it, clients reach
// agents through it, and it learns nothing of what they say.
package main

import "example.com/converge/pkg/cmdline"

func main() { cmdline.Main(program()) }
