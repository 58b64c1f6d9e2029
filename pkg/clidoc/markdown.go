package clidoc

import (
	"fmt"
	"strings"

	"example.com/converge/pkg/cmdline"
)

// Markdown is the program's page of the reference.
func Markdown(m cmdline.Manual) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n<!-- Made from the program's flags by scripts/reference: change those, not this page. -->\n\n", m.Name)
	markdown(&b, m, "##")
	for _, c := range m.Commands {
		fmt.Fprintf(&b, "\n## %s\n\n", c.Name)
		markdown(&b, c, "###")
	}
	return b.String()
}

func markdown(b *strings.Builder, m cmdline.Manual, level string) {
	fmt.Fprintf(b, "%s.\n\n```text\n%s\n```\n", sentence(m.Usage), strings.Join(m.Synopsis, "\n"))
	if m.Description != "" {
		fmt.Fprintf(b, "\n```text\n%s\n```\n", m.Description)
	}
	if len(m.Commands) > 0 {
		fmt.Fprintf(b, "\n%s Commands\n\n| command | what it does |\n|---|---|\n", level)
		for _, c := range m.Commands {
			fmt.Fprintf(b, "| [`%s`](#%s) | %s |\n", c.Name, strings.ReplaceAll(c.Name, " ", "-"), cell(c.Usage))
		}
	}
	category := ""
	for _, o := range m.Options {
		if o.Category != category {
			category = o.Category
			fmt.Fprintf(b, "\n%s %s\n\n| option | what it does | default | variable |\n|---|---|---|---|\n", level, category)
		}
		names := strings.Join(o.Names, "`, `")
		if o.Placeholder != "" {
			names += " " + o.Placeholder
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n",
			code(names), cell(o.Usage+notes(o)), code(o.Default), code(strings.Join(o.Env, "`, `")))
	}
}

// notes are what there is to know beside the explanation.
func notes(o cmdline.ManualOption) string {
	var notes []string
	if o.Repeatable {
		notes = append(notes, "repeatable")
	}
	if o.Required {
		notes = append(notes, "required")
	}
	if len(notes) == 0 {
		return ""
	}
	return " (" + strings.Join(notes, "; ") + ")"
}

// cell keeps text inside its cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;", "*", `\*`).Replace(s)
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.NewReplacer("|", `\|`, "\n", " ").Replace(s) + "`"
}

// sentence begins with a capital letter.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
