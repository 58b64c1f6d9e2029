package clidoc

import (
	"fmt"
	"slices"
	"strings"

	"example.com/converge/pkg/cmdline"
)

// Bash is a completion for bash 3.2, which macOS has, and later; it needs
// nothing of the package bash-completion.
func Bash(m cmdline.Manual) string {
	var b strings.Builder
	name := "_converge_" + function(m)
	words, manuals := levels(m)
	fmt.Fprintf(&b, `# bash completion for %[1]s, made from its flags.
# shellcheck shell=bash disable=SC2207

%[2]s() {
	local IFS=$'\n' current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command='' options='' i
	COMPREPLY=()
	# readline takes --option=value for three words.
	if [[ $current == '=' ]]; then
		current=''
	elif [[ $before == '=' ]] && ((COMP_CWORD > 1)); then
		before=${COMP_WORDS[COMP_CWORD-2]}
	fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		if [[ ${COMP_WORDS[i]} == -- ]]; then # a command of the user's own
			COMPREPLY=($(compgen -c -f -- "$current"))
			return
		fi
	done
`, m.Name, name)
	if len(words) > 1 {
		fmt.Fprintf(&b, "\tif ((COMP_CWORD > 1)); then\n\t\tcase ${COMP_WORDS[1]} in\n\t\t%s) command=${COMP_WORDS[1]} ;;\n\t\tesac\n\tfi\n",
			strings.Join(words[1:], " | "))
	}
	b.WriteString("\tcase \"$command $before\" in\n")
	for _, kind := range []struct {
		value   value
		compgen string
	}{{file, "-f"}, {directory, "-d"}, {word, ""}} {
		var patterns []string
		for i, level := range manuals {
			for _, o := range level.Options {
				if valueOf(o) == kind.value {
					for _, n := range o.Names {
						patterns = append(patterns, "'"+words[i]+" "+n+"'")
					}
				}
			}
		}
		if len(patterns) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\t%s)\n", strings.Join(patterns, " | \\\n\t\t"))
		if kind.compgen != "" {
			fmt.Fprintf(&b, "\t\tCOMPREPLY=($(compgen %s -- \"$current\"))\n", kind.compgen)
		}
		b.WriteString("\t\treturn\n\t\t;;\n")
	}
	b.WriteString("\tesac\n\tcase $current in\n\t-*)\n\t\tcase $command in\n")
	for i, level := range manuals {
		fmt.Fprintf(&b, "\t\t'%s') options='%s' ;;\n", words[i], strings.Join(names(level), "\n"))
	}
	b.WriteString("\t\tesac\n\t\tCOMPREPLY=($(compgen -W \"$options\" -- \"$current\"))\n\t\t;;\n")
	if len(words) > 1 {
		fmt.Fprintf(&b, "\t*)\n\t\tif ((COMP_CWORD == 1)); then\n\t\t\tCOMPREPLY=($(compgen -W '%s' -- \"$current\"))\n\t\tfi\n\t\t;;\n",
			strings.Join(words[1:], "\n"))
	}
	fmt.Fprintf(&b, "\tesac\n}\ncomplete -o filenames -F %s %s %s\n", name, m.Name, command(m))
	return b.String()
}

// names are all forms of all options.
func names(m cmdline.Manual) []string {
	var all []string
	for _, o := range m.Options {
		all = append(all, o.Names...)
	}
	return all
}

// Zsh is a completion for zsh, a file _NAME in its fpath.
func Zsh(m cmdline.Manual) string {
	var b strings.Builder
	words, manuals := levels(m)
	fmt.Fprintf(&b, "#compdef %s %s\n# zsh completion for %s, made from its flags.\n\n", m.Name, command(m), m.Name)
	fmt.Fprintf(&b, "_converge_%s() {\n\tlocal level=''\n", function(m))
	if len(words) > 1 {
		b.WriteString("\tlocal -a commands=(\n")
		for i, level := range manuals[1:] {
			fmt.Fprintf(&b, "\t\t%s\n", quote(strings.ReplaceAll(words[i+1], ":", `\:`)+":"+level.Usage))
		}
		b.WriteString("\t)\n\tif (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then\n\t\t_describe command commands\n\t\treturn\n\tfi\n")
		fmt.Fprintf(&b, "\tcase $words[2] in\n\t(%s)\n\t\tlevel=$words[2]\n\t\tshift words\n\t\t(( CURRENT-- ))\n\t\t;;\n\tesac\n", strings.Join(words[1:], "|"))
	}
	b.WriteString("\tcase $level in\n")
	for i, level := range manuals {
		fmt.Fprintf(&b, "\t('%s')\n\t\t_arguments", words[i])
		for _, o := range level.Options {
			for _, n := range o.Names {
				b.WriteString(" \\\n\t\t\t" + quote(zshOption(o, n)))
			}
		}
		b.WriteString(" \\\n\t\t\t'*:argument:_default'\n\t\t;;\n")
	}
	fmt.Fprintf(&b, "\tesac\n}\n\n_converge_%s \"$@\"\n", function(m))
	return b.String()
}

// zshOption is one form of an option as _arguments takes it.
func zshOption(o cmdline.ManualOption, name string) string {
	escape := strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, ":", `\:`)
	spec := name
	switch {
	case o.Repeatable:
		spec = "*" + spec
	case len(o.Names) > 1: // one form excludes the others
		spec = "(" + strings.Join(o.Names, " ") + ")" + spec
	}
	kind := valueOf(o)
	if kind != nothing && strings.HasPrefix(name, "--") {
		spec += "=" // --option value and --option=value
	}
	spec += "[" + escape.Replace(o.Usage) + "]"
	switch kind {
	case file:
		spec += ":" + escape.Replace(o.Placeholder) + ":_files"
	case directory:
		spec += ":" + escape.Replace(o.Placeholder) + ":_files -/"
	case word:
		spec += ":" + escape.Replace(o.Placeholder) + ": "
	}
	return spec
}

// quote makes one word of it for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Fish is a completion for fish.
func Fish(m cmdline.Manual) string {
	var b strings.Builder
	words, manuals := levels(m)
	condition := "__converge_" + function(m) + "_is"
	fmt.Fprintf(&b, "# fish completion for %s, made from its flags.\n\n", m.Name)
	fmt.Fprintf(&b, "function %s\n\tset -l words (commandline -opc)\n", condition)
	b.WriteString("\tif contains -- -- $words\n\t\treturn 1\n\tend\n")
	if len(words) > 1 {
		fmt.Fprintf(&b, "\tif test (count $words) -gt 1; and contains -- $words[2] %s\n\t\ttest $words[2] = \"$argv[1]\"\n\t\treturn\n\tend\n",
			strings.Join(words[1:], " "))
	}
	b.WriteString("\ttest -z \"$argv[1]\"\nend\n\n")
	for _, program := range []string{m.Name, command(m)} {
		for i, level := range manuals[1:] {
			fmt.Fprintf(&b, "complete -c %s -n '__fish_is_nth_token 1' -f -a %s -d %s\n", program, words[i+1], fishQuote(level.Usage))
		}
		for i, level := range manuals {
			for _, o := range level.Options {
				fmt.Fprintf(&b, "complete -c %s -n '%s \"%s\"'%s\n", program, condition, words[i], fishOption(o))
			}
		}
	}
	return b.String()
}

func fishOption(o cmdline.ManualOption) string {
	var b strings.Builder
	for _, n := range o.Names {
		if long, ok := strings.CutPrefix(n, "--"); ok {
			b.WriteString(" -l " + long)
		} else {
			b.WriteString(" -s " + n[1:])
		}
	}
	switch valueOf(o) {
	case file:
		b.WriteString(" -r -F")
	case directory:
		b.WriteString(" -x -a '(__fish_complete_directories)'")
	case word:
		b.WriteString(" -x")
	}
	return b.String() + " -d " + fishQuote(o.Usage)
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

// PowerShell is a completion for Windows PowerShell 5.1 and later.
func PowerShell(m cmdline.Manual) string {
	var b strings.Builder
	words, manuals := levels(m)
	fmt.Fprintf(&b, "# PowerShell completion for %[1]s, made from its flags.\n"+
		"Register-ArgumentCompleter -Native -CommandName %[2]s, %[3]s, %[4]s -ScriptBlock {\n"+
		"    param($wordToComplete, $commandAst, $cursorPosition)\n"+
		"    $words = @($commandAst.CommandElements | ForEach-Object { $_.ToString() })\n"+
		"    # The word before the one that is being completed, if any of that is written.\n"+
		"    $before = $words.Count - 1\n"+
		"    if ($wordToComplete -ne '') { $before-- }\n"+
		"    if ($words[0..$before] -contains '--') { return }\n"+
		"    $commands = [ordered]@{\n", m.Name, psQuote(m.Name), psQuote(m.Name+".exe"), psQuote(command(m)))
	for i, level := range manuals[1:] {
		fmt.Fprintf(&b, "        %s = %s\n", psQuote(words[i+1]), psQuote(level.Usage))
	}
	b.WriteString("    }\n    $options = @{\n")
	for i, level := range manuals {
		fmt.Fprintf(&b, "        %s = [ordered]@{\n", psQuote(words[i]))
		for _, o := range level.Options {
			for _, n := range o.Names {
				fmt.Fprintf(&b, "            %s = %s\n", psQuote(n), psQuote(o.Usage))
			}
		}
		b.WriteString("        }\n")
	}
	var values []string
	for _, level := range manuals {
		for _, o := range level.Options {
			for _, n := range o.Names {
				if valueOf(o) != nothing && !slices.Contains(values, psQuote(n)) {
					values = append(values, psQuote(n))
				}
			}
		}
	}
	fmt.Fprintf(&b, `    }
    $level = ''
    if ($words.Count -gt 1 -and $commands.Contains($words[1]) -and $words[1] -ne $wordToComplete) { $level = $words[1] }
    # No answer: PowerShell offers files for the value of an option.
    if ($before -gt 0 -and @(%s) -ccontains $words[$before]) { return }
    $offered = $options[$level]
    if ($wordToComplete -notlike '-*') {
        if ($before -gt 0) { return }
        $offered = $commands
    }
    foreach ($name in @($offered.Keys)) {
        if ($name.StartsWith($wordToComplete)) {
            [System.Management.Automation.CompletionResult]::new($name, $name, 'ParameterName', $offered[$name])
        }
    }
}
`, strings.Join(values, ", "))
	return b.String()
}

// psQuote makes a literal string. The quotation marks of typography end one too,
// and become the plain one.
func psQuote(s string) string {
	return "'" + strings.NewReplacer("'", "''", "\u2018", "''", "\u2019", "''", "\u201a", "''", "\u201b", "''").Replace(s) + "'"
}
