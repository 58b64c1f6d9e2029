// Command release makes the parts of a release that need more than a shell:
// archives with the same bytes each time, the list of what is inside the
// programs (SPDX), the licences of that, and the notes of one version. It is
// run by scripts/release, on programs that were built before, and knows nothing
// of what they do. It ships nowhere.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

const usage = `usage: release pack OUT.tar.gz|OUT.zip DIR
       release sbom VERSION PROGRAM...
       release licenses PROGRAM...
       release notes VERSION < CHANGELOG.md
SOURCE_DATE_EPOCH is the time of all that is made, in seconds since 1970.`

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) < 2 {
		return fmt.Errorf("say what to make\n%s", usage)
	}
	command, args := args[0], args[1:]
	switch {
	case command == "pack" && len(args) == 2:
		when, err := epoch()
		if err != nil {
			return err
		}
		return pack(args[0], args[1], when)
	case command == "sbom" && len(args) >= 2:
		when, err := epoch()
		if err != nil {
			return err
		}
		return sbom(stdout, args[0], when, args[1:])
	case command == "licenses":
		return licenses(stdout, args)
	case command == "notes" && len(args) == 1:
		return notes(stdout, stdin, args[0])
	}
	return fmt.Errorf("%q is not one of its commands, or has other arguments\n%s", command, usage)
}

// epoch is the time of the release: that of its commit.
func epoch() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds <= 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q: set it to the time of the commit, in seconds since 1970", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
