package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// stage makes a folder to pack; the two differ in all that must not matter.
func stage(t *testing.T, second bool) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tool_v1_linux")
	names := []string{"LICENSE", "man/tool.1", "tool"}
	mode, umask := fs.FileMode(0o644), fs.FileMode(0o755)
	if second {
		slices.Reverse(names)
		mode, umask = 0o600, 0o700
	}
	for _, name := range names {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), umask); err != nil {
			t.Fatal(err)
		}
		perm := mode
		if name == "tool" {
			perm |= 0o100
		}
		if err := os.WriteFile(file, []byte(strings.Repeat(name, 1000)), perm); err != nil {
			t.Fatal(err)
		}
		if second {
			if err := os.Chtimes(file, time.Now(), time.Unix(1e9, 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

var when = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// listed is what both formats say of an entry.
type listed struct {
	name string
	mode fs.FileMode
	time time.Time
}

var wantEntries = []listed{
	{"tool_v1_linux/", fs.ModeDir | 0o755, when},
	{"tool_v1_linux/LICENSE", 0o644, when},
	{"tool_v1_linux/man/", fs.ModeDir | 0o755, when},
	{"tool_v1_linux/man/tool.1", 0o644, when},
	{"tool_v1_linux/tool", 0o755, when},
}

func TestPack(t *testing.T) {
	for _, format := range []string{"tar.gz", "zip"} {
		var made [2][]byte
		for i := range made {
			out := filepath.Join(t.TempDir(), "a."+format)
			if err := pack(out, stage(t, i == 1), when); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			made[i] = data
		}
		if !bytes.Equal(made[0], made[1]) {
			t.Errorf("%s has other bytes from another folder with the same files", format)
		}
		entries, tool := list(t, format, made[0])
		if !slices.Equal(entries, wantEntries) {
			t.Errorf("%s has %v", format, entries)
		}
		if tool != strings.Repeat("tool", 1000) {
			t.Errorf("%s: the program has %d bytes", format, len(tool))
		}
	}
}

// list reads an archive back, and the program in it.
func list(t *testing.T, format string, data []byte) (entries []listed, tool string) {
	t.Helper()
	read := func(r io.Reader, e listed) {
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.name, "/tool") {
			tool = string(content)
		}
		entries = append(entries, e)
	}
	if format == "zip" {
		r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range r.File {
			content, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			read(content, listed{f.Name, f.Mode(), f.Modified.UTC()})
			_ = content.Close()
		}
		return entries, tool
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries, tool
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", h.Name, h.Uid, h.Gid)
		}
		read(r, listed{h.Name, h.FileInfo().Mode(), h.ModTime.UTC()})
	}
}

// TestPackRefuses what it cannot pack, and leaves no half of an archive.
func TestPackRefuses(t *testing.T) {
	linked := stage(t, false)
	if err := os.Symlink("tool", filepath.Join(linked, "link")); err != nil {
		t.Fatal(err)
	}
	for out, dir := range map[string]string{
		"a.rar": stage(t, false), "a.zip": linked, "b.tar.gz": filepath.Join(linked, "nothing"),
	} {
		out = filepath.Join(t.TempDir(), out)
		if err := pack(out, dir, when); err == nil {
			t.Errorf("%s of %s: no error", out, dir)
		}
		if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", out, err)
		}
	}
}

const changelog = `# Changelog

## [Unreleased]

### Added

- New.

## [1.2.0] - 2026-02-03

### Fixed

- One.
  [A link](https://example.com).

## [1.2.0-rc.1] - 2026-02-01

- Early.

[1.2.0]: https://example.com/v1.2.0
`

func TestNotes(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.0":      "### Fixed\n\n- One.\n  [A link](https://example.com).\n",
		"v1.2.0-rc.1": "- Early.\n",
		"Unreleased":  "### Added\n\n- New.\n",
		"v1.2":        "",
		"v2.0.0":      "",
	} {
		var out bytes.Buffer
		err := notes(&out, strings.NewReader(changelog), version)
		if out.String() != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", version, &out, err)
		}
	}
}

func TestLicenseName(t *testing.T) {
	const bsd = "Redistribution and use in source and binary forms, with or without"
	for text, want := range map[string]string{
		"Permission is hereby granted,\nfree of charge, to": "MIT",
		"Apache License\n   Version 2.0":                    "Apache-2.0",
		bsd:                                                 "BSD-2-Clause",
		bsd + " may be used to endorse or\npromote products":           "BSD-3-Clause",
		"Permission is hereby granted, free of charge. Apache License": "Apache-2.0 AND MIT",
		"All rights reserved.": "NOASSERTION",
	} {
		if got := licenseName(text); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	var out bytes.Buffer
	for _, args := range [][]string{
		nil, {"pack"}, {"pack", "a.zip"}, {"pack", "a.zip", t.TempDir()}, {"sbom", "v1"}, {"sbom", "v1", os.Args[0]}, {"bake", "v1"},
		{"licenses", "release_test.go"},
	} {
		if err := run(args, strings.NewReader(""), &out); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
	// This test binary is of no version.
	t.Setenv("SOURCE_DATE_EPOCH", "1")
	if err := run([]string{"sbom", "v1.2.3", os.Args[0]}, nil, &out); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("a program of another version: %v", err)
	}
	if out.Len() > 0 {
		t.Errorf("wrote %q", &out)
	}
}
