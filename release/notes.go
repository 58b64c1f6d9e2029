package main

import (
	"fmt"
	"io"
	"strings"
)

// maxChangelog bounds what is read, in bytes.
const maxChangelog = 16 << 20

// notes writes the part of a changelog, in the form of Keep a Changelog, that
// is of one version: what stands below its heading.
func notes(w io.Writer, changelog io.Reader, version string) error {
	data, err := io.ReadAll(io.LimitReader(changelog, maxChangelog))
	if err != nil {
		return fmt.Errorf("read the changelog: %w", err)
	}
	text, ok := section(string(data), strings.TrimPrefix(version, "v"))
	if !ok {
		return fmt.Errorf("CHANGELOG.md has no section [%s]: scripts/set-version %s makes one of what is unreleased", strings.TrimPrefix(version, "v"), version)
	}
	_, err = io.WriteString(w, text)
	return err
}

// section finds what stands below "## [name]", up to the next heading of that
// level or to the link definitions at the end.
func section(changelog, name string) (text string, ok bool) {
	var b strings.Builder
	for line := range strings.Lines(changelog) {
		if strings.HasPrefix(line, "## ") {
			if ok {
				break
			}
			ok = strings.HasPrefix(line, "## ["+name+"]")
			continue
		}
		if ok && !(strings.HasPrefix(line, "[") && strings.Contains(line, "]: ")) {
			b.WriteString(line)
		}
	}
	text = strings.TrimSpace(b.String())
	return text + "\n", ok && text != ""
}
