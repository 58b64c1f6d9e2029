package winproc

import (
	"slices"
	"strings"
)

// unixShells are those that know -l, a login shell. They come with Git, MSYS2
// and Cygwin.
var unixShells = []string{"bash", "sh", "zsh", "dash", "ksh", "fish"}

// Shells returns the programs to try as a shell, in this order: SHELL (which
// Git's bash sets), ComSpec, and cmd. The names of variables are taken in any
// case, the last of several counts.
func Shells(env []string) []string {
	var list []string
	for _, name := range []string{"SHELL", "ComSpec"} {
		switch shell := lookup(env, name); program(shell) {
		case "", "false", "true", "nologin": // accounts of services have these
		default:
			list = append(list, shell)
		}
	}
	return append(list, "cmd.exe")
}

// Arguments returns how a shell is called to run a line, or to be interactive
// if the line is empty: its arguments, with itself as the first, or where its
// rules are its own a complete command line instead. terminal says that it
// runs on a console.
func Arguments(shell, line string, terminal bool) (args []string, commandLine string) {
	name, args := program(shell), []string{shell}
	switch {
	case name == "cmd" && line != "":
		// cmd does not quote as others do: /s takes the outer quotes off and
		// leaves the rest alone. /d leaves out what the registry would run.
		return nil, `"` + shell + `" /d /s /c "` + line + `"`
	case name == "cmd":
	case name == "powershell" || name == "pwsh":
		args = append(args, "-NoLogo")
		switch {
		case line == "" && terminal:
			// with the user's profile
		case line == "":
			args = append(args, "-NoProfile", "-Command", "-")
		case terminal:
			args = append(args, "-NoProfile", "-Command", line)
		default:
			args = append(args, "-NoProfile", "-NonInteractive", "-Command", line)
		}
	case line != "":
		args = append(args, "-c", line)
	case slices.Contains(unixShells, name):
		args = append(args, "-l")
	}
	return args, ""
}

// program returns the name of a program without folder and .exe, in lower
// case. It takes both separators on every platform.
func program(file string) string {
	name := strings.ToLower(file[strings.LastIndexAny(file, `\/`)+1:])
	return strings.TrimSuffix(name, ".exe")
}

// lookup returns the last value of a variable, whose name is in any case.
func lookup(env []string, name string) string {
	for _, entry := range slices.Backward(env) {
		if key, value, ok := strings.Cut(entry, "="); ok && strings.EqualFold(key, name) {
			return value
		}
	}
	return ""
}
