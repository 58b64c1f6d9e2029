//go:build !reference

// Command tcptows listens on a local port and joins each connection to a
// websocket, so that clients without a ProxyCommand reach an agent.
package main

import "example.com/converge/pkg/cmdline"

func main() { cmdline.Main(program()) }
