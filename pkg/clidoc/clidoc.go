// Package clidoc writes what ships beside a program from the program's own
// flags: the page of the reference, the manual page, and the completions of
// four shells. So none of them can say anything else than --help does. It
// knows command lines as pkg/cmdline describes them and nothing of what the
// programs do, and is linked only into programs built with the tag reference.
package clidoc

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"example.com/converge/pkg/cmdline"
)

// Main prints a document about p on standard output and exits: 0, 1 where it
// cannot be written, or 2 after a wrong command line. It is called as
//
//	PROGRAM markdown | bash | zsh | fish | powershell
//	PROGRAM man VERSION DATE
//
// where VERSION and DATE (2006-01-02) are those of the release.
func Main(p cmdline.Program) { Print(p.Manual()) }

// Print is Main for a program whose command line is not that of pkg/cmdline.
func Print(m cmdline.Manual) { os.Exit(run(m, os.Args[1:], os.Stdout, os.Stderr)) }

func run(m cmdline.Manual, args []string, stdout, stderr io.Writer) int {
	return cmdline.Run(context.Background(), cmdline.Program{
		Name: m.Name, Usage: "prints a document about " + m.Name,
		ArgsUsage: "markdown | bash | zsh | fish | powershell\nman VERSION DATE",
		Run: func(_ context.Context, in *cmdline.Invocation) error {
			text, err := document(m, in.Args)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(in.Stdout, text); err != nil {
				return fmt.Errorf("cannot write the document: %w", err)
			}
			return nil
		},
	}, append([]string{m.Name}, args...), nil, stdout, stderr)
}

func document(m cmdline.Manual, args []string) (string, error) {
	if len(args) == 3 && args[0] == "man" {
		date, err := time.Parse(time.DateOnly, args[2])
		if err != nil {
			return "", cmdline.Usagef("%q is no date: write it as 2006-01-02", args[2])
		}
		return Man(m, args[1], date), nil
	}
	if len(args) == 1 {
		switch args[0] {
		case "markdown":
			return Markdown(m), nil
		case "bash":
			return Bash(m), nil
		case "zsh":
			return Zsh(m), nil
		case "fish":
			return Fish(m), nil
		case "powershell":
			return PowerShell(m), nil
		}
	}
	return "", cmdline.Usagef("say which document: markdown, man VERSION DATE, bash, zsh, fish or powershell")
}

// value is what an option's value is, for a shell that completes it.
type value int

const (
	nothing   value = iota // a switch
	word                   // something that only the user knows
	file                   // the path of a file
	directory              // the path of a folder
)

// valueOf tells it from the placeholder: FILE and DIR are what they say.
func valueOf(o cmdline.ManualOption) value {
	switch o.Placeholder {
	case "":
		return nothing
	case "FILE", "PATH", "@FILE":
		return file
	case "DIR":
		return directory
	}
	return word
}

// commandWord is the subcommand's own word.
func commandWord(m cmdline.Manual) string {
	return m.Name[strings.LastIndexByte(m.Name, ' ')+1:]
}

// levels are the program and its subcommands, each with the word that chooses
// it: none for the program.
func levels(m cmdline.Manual) (words []string, manuals []cmdline.Manual) {
	words, manuals = append(words, ""), append(manuals, m)
	for _, c := range m.Commands {
		words, manuals = append(words, commandWord(c)), append(manuals, c)
	}
	return words, manuals
}

// function is the part of a shell function's name that tells programs apart.
func function(m cmdline.Manual) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(m.Name))
}

// command is the name under which the packages install a program beside its
// own.
func command(m cmdline.Manual) string { return "converge-" + m.Name }
