// Command agent runs in a job that cannot be reached: it calls out to a
// rendezvous server and serves SSH to whoever is let in through it.
package main

import "example.com/converge/pkg/cmdline"

func main() { cmdline.Main(program()) }
