//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"example.com/converge/bench/internal/measures"
)

// fact is something to know of where the figures come from.
type fact struct{ Name, Text string }

// surroundings tells what was measured, on what, and with which versions.
func surroundings(ctx context.Context, cfg measures.Config) []fact {
	return []fact{
		{"date", time.Now().UTC().Format(time.DateOnly)},
		{"command", command()},
		{"revision", revision(ctx, cfg.Lab.Root)},
		{"machine", machine()},
		{"versions", versions(ctx)},
		{"load at the start", load()},
	}
}

// command is how this was called, fit to be typed again.
func command() string {
	if len(os.Args) == 1 {
		return "make bench"
	}
	return fmt.Sprintf("make bench BENCH=%q", strings.Join(os.Args[1:], " "))
}

// revision is that of the repository.
func revision(ctx context.Context, root string) string {
	cmd := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=12")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// machine is the processor and the kernel.
func machine() string {
	model := "processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if match := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(text); match != nil {
			model = string(match[1])
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d × %s, Linux %s %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.GOARCH)
}

// load is how busy the machine is: figures of a busy one say little.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// versions are those of the programs and libraries that are compared.
func versions(ctx context.Context) string {
	list := []string{strings.Replace(runtime.Version(), "go", "Go ", 1)}
	for _, program := range []struct {
		args    []string
		pattern string
		name    string
	}{
		{[]string{"ssh", "-V"}, `OpenSSH_([^ ,]+)`, "OpenSSH"},
		{[]string{"nginx", "-v"}, `nginx/(\S+)`, "nginx"},
		{[]string{"haproxy", "-v"}, `version (\S+)`, "HAProxy"},
		{[]string{"dpkg-query", "-W", "-f", "version ${Version}", "websockify"}, `version (\S+)`, "websockify"},
	} {
		out, err := exec.CommandContext(ctx, program.args[0], program.args[1:]...).CombinedOutput()
		if match := regexp.MustCompile(program.pattern).FindSubmatch(out); err == nil && match != nil {
			list = append(list, program.name+" "+string(match[1]))
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			switch module.Path {
			case "nhooyr.io/websocket", "github.com/hashicorp/yamux":
				list = append(list, module.Path+" "+module.Version)
			}
		}
	}
	return strings.Join(list, ", ")
}

// describe writes facts as a table.
func describe(facts []fact) string {
	var b strings.Builder
	b.WriteString("| | |\n|---|---|\n")
	for _, f := range facts {
		text := strings.ReplaceAll(f.Text, "|", `\|`)
		if f.Name == "command" {
			text = "`" + text + "`"
		}
		b.WriteString("| " + f.Name + " | " + text + " |\n")
	}
	return b.String() + "\n"
}
