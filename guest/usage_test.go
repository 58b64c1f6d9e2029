package main

import (
	"debug/elf"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"example.com/converge/container/guest"
)

// TestUsage compares what -h prints with the document.
func TestUsage(t *testing.T) {
	document, err := os.ReadFile("USAGE.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(document) != guest.Usage {
		t.Error("USAGE.md is not what -h prints: run go generate")
	}
	for _, option := range []string{"-h", "--help"} {
		run(t, command(t, option), "").want(t, "", 0, string(document))
	}
	for _, word := range []string{guest.Console, guest.Signal, guest.WaitSignal, guest.WriteFile, guest.ForwardServer} {
		if !guest.IsMode(word) || !strings.Contains(guest.Usage, "\n## "+word+"\n") {
			t.Errorf("%s is no mode, or not explained", word)
		}
	}
	if guest.IsMode("--help") || guest.IsMode("") {
		t.Error("an option is a mode")
	}
	version := run(t, command(t, "--version"), "")
	if !regexp.MustCompile(`^guest \S.* \(go\S+ \w+/\w+\)\n$`).MatchString(version.stdout) || version.code != 0 {
		t.Errorf("the version is %+v", version)
	}
}

// TestDocumentedOptions: every option in the text is one that its mode knows, and
// every exit code has a line.
func TestDocumentedOptions(t *testing.T) {
	sections := strings.Split(guest.Usage, "\n## ")[1:]
	for _, section := range sections {
		word, _, _ := strings.Cut(section, "\n")
		for _, match := range regexp.MustCompile("(?m)^\\| `(--[a-z]+)").FindAllStringSubmatch(section, -1) {
			got := run(t, command(t, word, match[1]), "")
			if strings.Contains(got.stderr, "unknown option") || strings.Contains(got.stderr, "invalid parameter") {
				t.Errorf("%s does not know %s: %s", word, match[1], got.stderr)
			}
		}
		if !strings.Contains(section, "| exit code | why |") {
			t.Errorf("%s has no exit codes", word)
		}
	}
	if len(sections) != 5 {
		t.Errorf("there are %d sections, want one for each mode", len(sections))
	}
}

// TestWrongCommandLines says so on standard error only: standard output may be read
// as a process id.
func TestWrongCommandLines(t *testing.T) {
	for line, said := range map[string]string{
		"":                                     "guest: not enough parameters; try 'guest -h'\n",
		"unknown":                              "invalid mode: unknown",
		"console":                              "no program to run passed",
		"console --pid":                        "no program to run passed",
		"console --pid --":                     "no program to run passed",
		"console --env":                        "--env requires an argument",
		"console --env --pid -- true":          "--env requires an argument",
		"console --env X -- true":              "--env requires an argument in the format of NAME=VALUE",
		"console --env =X -- true":             "--env requires an argument in the format of NAME=VALUE",
		"console --x -- true":                  "invalid parameter: --x",
		"console true":                         "invalid parameter: true",
		"signal":                               "missing required --pid option",
		"signal --pid 1":                       "missing required --signal option",
		"signal --signal TERM":                 "missing required --pid option",
		"signal --pid":                         "--pid requires an argument",
		"signal --signal":                      "--signal requires an argument",
		"signal --pid 0 --signal TERM":         "--pid requires a positive integer argument",
		"signal --pid -1 --signal TERM":        "--pid requires a positive integer argument",
		"signal --pid x --signal TERM":         "--pid requires a positive integer argument",
		"signal --pid 4294967297 --signal HUP": "--pid requires a positive integer argument",
		"signal --pid 1 --pid 1":               "--pid is duplicate",
		"signal --signal HUP --signal HUP":     "--signal is duplicate",
		"signal --group --group":               "--group is duplicate",
		"signal --pid 1 --signal SIGTERM":      "unsupported signal: SIGTERM",
		"signal --pid 1 --signal WINCH":        "unsupported signal: WINCH",
		"signal 1":                             "unknown option: 1",
		"wait-signal":                          "missing required --signal option",
		"wait-signal --signal":                 "--signal requires an argument",
		"wait-signal --signal X":               "unsupported signal: X",
		"wait-signal --signal KILL":            "unsupported signal: KILL",
		"wait-signal --message":                "--message requires an argument",
		"wait-signal --message a --message b":  "--message is duplicate",
		"wait-signal x":                        "unknown option: x",
		"write-file":                           "write-file takes one argument",
		"write-file a b":                       "write-file takes one argument",
		"forward-server x":                     "forward-server takes no arguments",
	} {
		got := run(t, command(t, strings.Fields(line)...), "")
		if got.stdout != "" || got.code != 1 || !strings.Contains(got.stderr, said) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("guest %s: it printed %q, said %q and exited with %d; want %q and 1", line, got.stdout, got.stderr, got.code, said)
		}
	}
}

// maxSize is how large the program may be, in bytes.
const maxSize = 3_000_000

// TestSize is of the programs that go into images.
func TestSize(t *testing.T) {
	for _, platform := range []string{"linux/amd64", "linux/arm64", "windows/amd64", "windows/arm64"} {
		system, arch, _ := strings.Cut(platform, "/")
		file := filepath.Join(t.TempDir(), "guest")
		if err := build(t.Context(), file, "GOOS="+system, "GOARCH="+arch); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() >= maxSize {
			t.Errorf("for %s it has %d bytes, want less than %d", platform, info.Size(), maxSize)
		}
	}
}

// TestStatic: it asks for no loader and no library.
func TestStatic(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // where there is nothing like it
	}
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Error("it is linked dynamically")
		}
	}
}
