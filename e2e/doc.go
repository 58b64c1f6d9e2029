// Package e2e holds the end-to-end tests: the four programs as they are built,
// joined over loopback and used with stock OpenSSH. It has no code of its own.
package e2e
