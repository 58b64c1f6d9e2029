package main

import (
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/module"
)

// component is a module, or Go's standard library, that programs contain.
type component struct {
	path, version string
	// sum is its checksum as go.sum has it; empty for the standard library.
	sum string
}

// standard is the path under which vulnerability databases know the standard
// library.
const standard = "stdlib"

// inspected is one program.
type inspected struct {
	// name is that of the tool, path of its package.
	name, path string
	info       *debug.BuildInfo
	components []component
}

// inspect reads what the Go command recorded in a program, whatever the system
// that it is for.
func inspect(file string) (inspected, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return inspected{}, fmt.Errorf("read what is inside of %s: %w", file, err)
	}
	p := inspected{name: path.Base(info.Path), path: info.Path, info: info}
	p.components = append(p.components, component{path: standard, version: strings.TrimPrefix(info.GoVersion, "go")})
	for _, dep := range info.Deps {
		if strings.HasPrefix(dep.Path, path.Dir(info.Main.Path)+"/") { // one of our own, of the same version
			continue
		}
		p.components = append(p.components, component{path: dep.Path, version: dep.Version, sum: dep.Sum})
	}
	return p, nil
}

// inspectAll reads several programs, and all that they contain, sorted.
func inspectAll(files []string) ([]inspected, []component, error) {
	var programs []inspected
	var all []component
	for _, file := range files {
		p, err := inspect(file)
		if err != nil {
			return nil, nil, err
		}
		programs = append(programs, p)
		for _, c := range p.components {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	slices.SortFunc(all, func(a, b component) int {
		return strings.Compare(a.path+"@"+a.version, b.path+"@"+b.version)
	})
	return programs, all, nil
}

// sourceDir is the folder that has a component's source.
func sourceDir(c component) (string, error) {
	if c.path == standard {
		return goRoot()
	}
	cache, err := goModCache()
	if err != nil {
		return "", err
	}
	escaped, err := module.EscapePath(c.path)
	if err != nil {
		return "", err
	}
	version, err := module.EscapeVersion(c.version)
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, filepath.FromSlash(escaped)+"@"+version), nil
}

var (
	goRoot     = sync.OnceValues(func() (string, error) { return goEnv("GOROOT") })
	goModCache = sync.OnceValues(func() (string, error) { return goEnv("GOMODCACHE") })
)

// licenseText finds the licence of a component, and its NOTICE, in the module
// cache or in Go's own folder: its redistribution asks for them.
func licenseText(c component) (string, error) {
	dir, err := sourceDir(c)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", c.path, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("find the licence of %s: %w", c.path, err)
	}
	var text strings.Builder
	for _, f := range files {
		upper := strings.ToUpper(f.Name())
		if f.Type().IsRegular() && (strings.HasPrefix(upper, "LICEN") || strings.HasPrefix(upper, "COPYING") || strings.HasPrefix(upper, "NOTICE")) {
			data, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				return "", err
			}
			text.WriteString(strings.TrimSpace(strings.ReplaceAll(string(data), "\r\n", "\n")) + "\n\n")
		}
	}
	if text.Len() == 0 {
		return "", fmt.Errorf("%s %s has no licence in %s: it must not be shipped", c.path, c.version, dir)
	}
	return text.String(), nil
}

// goEnv asks the Go command for one of its settings.
func goEnv(name string) (string, error) {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		return "", fmt.Errorf("go env %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// licenses writes the licences of all that the programs contain beside our own
// code, as most of them ask of whoever passes a binary on.
func licenses(w io.Writer, files []string) error {
	_, components, err := inspectAll(files)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "These programs contain the following works, under the licences given.\n\n"); err != nil {
		return err
	}
	for _, c := range components {
		text, err := licenseText(c)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s\n%s %s (%s)\n%s\n\n%s", rule, c.path, c.version, licenseName(text), rule, text); err != nil {
			return err
		}
	}
	return nil
}

var rule = strings.Repeat("=", 78)

// licenseName is the SPDX expression for the text of a licence, by words that
// only that licence has; NOASSERTION if it is none of the usual ones.
func licenseName(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	var names []string
	for _, known := range []struct{ name, words string }{
		{"Apache-2.0", "Apache License"},
		{"MIT", "Permission is hereby granted, free of charge"},
		{"MPL-2.0", "Mozilla Public License Version 2.0"},
		{"ISC", "Permission to use, copy, modify, and"},
	} {
		if strings.Contains(text, known.words) {
			names = append(names, known.name)
		}
	}
	if strings.Contains(text, "Redistribution and use in source and binary forms") {
		if strings.Contains(text, "endorse or promote products") {
			names = append(names, "BSD-3-Clause")
		} else {
			names = append(names, "BSD-2-Clause")
		}
	}
	if len(names) == 0 {
		return "NOASSERTION"
	}
	return strings.Join(names, " AND ")
}
