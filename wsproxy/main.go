//go:build !reference

// Command wsproxy joins its standard input and output to a websocket, so that
// stock ssh reaches an agent through a rendezvous server (ProxyCommand).
package main

import "example.com/converge/pkg/cmdline"

func main() { cmdline.Main(program()) }
