// Package sshconfig writes the block of ssh_config(5) by which everything that
// uses ssh finds agents by name. It reads no configuration and knows nothing of
// connections.
package sshconfig

import (
	"fmt"
	"strings"

	"example.com/converge/wsproxy/internal/tools"
)

// Block is what goes into it.
type Block struct {
	// Domain is what the names end in.
	Domain string
	// User is the log-in name.
	User string
	// Proxy is the command to which ssh adds the name as it was typed, in
	// quotes; percent signs are doubled.
	Proxy string
	// KnownHosts is wsproxy's own file of keys.
	KnownHosts string
	// AliveInterval, in seconds, and AliveCount are ssh's patience.
	AliveInterval, AliveCount int
	// Windows says that there is no shell between ssh and the command, but a
	// program that knows double quotes only.
	Windows bool
}

// Text returns the block. ssh takes the first value of an option that it meets,
// so what stands before the block, such as in Host *, comes first.
//
// %n is the name as it was typed: %h is lower-cased, and the case of an id's
// letters counts. Single quotes keep the shell from all that is in a name but a
// single quote, so the block is not for names with one: ssh then does not call
// the command at all. Versions since 9.6, and older ones that were mended, refuse
// names with any sign of the shell's by themselves (CVE-2023-51385).
func (b Block) Text() string {
	name, hosts := `'%n'`, "*."+b.Domain+` "!*'*"`
	if b.Windows {
		// A double quote cannot be written in a pattern of older versions. What
		// follows one in a name is arguments too many for the command.
		name, hosts = `"%n"`, "*."+b.Domain
	}
	file := tools.File(b.KnownHosts)
	var text strings.Builder
	fmt.Fprintf(&text, "\n# Converge: ssh ID.%s, written by wsproxy ssh-config\nHost %s\n", b.Domain, hosts)
	for _, option := range [][2]string{
		{"User", b.User},
		{"ProxyCommand", b.Proxy + " " + name},
		{"UserKnownHostsFile", file},
		{"GlobalKnownHostsFile", file},
		{"StrictHostKeyChecking", "yes"},
		{"VerifyHostKeyDNS", "no"},
		{"UpdateHostKeys", "no"},
		{"CheckHostIP", "no"},
		{"CanonicalizeHostname", "no"},
		{"ServerAliveInterval", fmt.Sprint(b.AliveInterval)},
		{"ServerAliveCountMax", fmt.Sprint(b.AliveCount)},
	} {
		fmt.Fprintf(&text, "    %s %s\n", option[0], option[1])
	}
	return text.String()
}
