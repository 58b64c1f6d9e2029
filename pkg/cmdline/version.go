package cmdline

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// develVersion is what a build without a version calls itself.
const develVersion = "(devel)"

// revisionLength is how much of a commit's name is shown, in characters: as
// much as Go's pseudo-versions hold.
const revisionLength = 12

// Version returns the version of the main module as the go command recorded
// it, "(devel)" where it recorded none, followed by the commit when that is
// known and not part of the version already.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return develVersion
	}
	return versionOf(info)
}

func versionOf(info *debug.BuildInfo) string {
	version := info.Main.Version
	if version == "" {
		version = develVersion
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

// versionLine is what --version prints.
func versionLine(name string) string {
	return fmt.Sprintf("%s %s (%s %s/%s)\n", name, Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
