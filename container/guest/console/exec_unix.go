//go:build unix

package console

import "syscall"

// execve also gives the program back the limit of open files that Go has raised for
// itself, for which package syscall is needed.
func execve(path string, argv, env []string) error { return syscall.Exec(path, argv, env) }
