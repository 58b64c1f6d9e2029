// Package version knows the version of the running program, which the go
// command stamped into it. It knows nothing of command lines, so that a program
// without a framework for those says it in the same words.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// devel is what a build without a version calls itself.
const devel = "(devel)"

// revisionLength is how much of a commit's name is shown, in characters: as
// much as Go's pseudo-versions hold.
const revisionLength = 12

// String returns the version of the main module as the go command recorded it,
// "(devel)" where it recorded none, followed by the commit when that is known
// and not part of the version already.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return devel
	}
	return of(info)
}

// Line is what --version prints for a program of that name, with the end of the
// line.
func Line(name string) string {
	return fmt.Sprintf("%s %s (%s %s/%s)\n", name, String(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func of(info *debug.BuildInfo) string {
	version := info.Main.Version
	if version == "" {
		version = devel
	}
	var revision, modified string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(len(s.Value), revisionLength)]
		case "vcs.modified":
			if s.Value == "true" {
				modified = "+dirty"
			}
		}
	}
	if revision == "" || strings.Contains(version, revision) {
		return version
	}
	return version + " " + revision + modified
}
