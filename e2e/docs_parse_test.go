package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The blocks of the documents whose language is sh are commands, and every one
// of them is run: by TestDocuments, which its info string tells how,
//
//	run              to its end, with exit code 0
//	each             line by line, each in its turn
//	until="TEXT"     until it prints this; then it stays to the end of the page,
//	                 or, with each, ends
//	expect="TEXT"    it prints this
//	exits=1          its exit code, or any
//	in=session       typed in a shell of a job
//	env=proxy        where an HTTP proxy is the only way out
//	as="NAME"        for a later block: what until left running
//	ends="NAME=1"    after it that process has ended by itself with this code
//
// or by the test that the line <!-- test: NAME --> before it names. Commands
// that no test can run are of the language console.

// block is one fenced block of a document.
type block struct {
	page string // slash-separated, from the root of the repository
	line int    // of the fence, from 1
	lang string
	args map[string]string
	mark string // NAME of the test
	text string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

func (b block) has(arg string) bool { _, ok := b.args[arg]; return ok }

// documents lists the pages for people who use Converge.
func documents(t *testing.T) []string {
	t.Helper()
	pages := []string{"README.md", "CONTRIBUTING.md"}
	for _, dir := range []string{"docs", "deploy"} {
		err := fs.WalkDir(os.DirFS(".."), dir, func(name string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && strings.HasSuffix(name, ".md") {
				pages = append(pages, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return pages
}

var (
	fence    = regexp.MustCompile("^(\\s*)```+(.*)$")
	testMark = regexp.MustCompile(`^\s*<!-- test: (\S+) -->$`)
	infoArg  = regexp.MustCompile(`([a-z]+)(?:=(?:"([^"]*)"|(\S+)))?`)
)

// blocks reads the fenced blocks of a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	var open *block
	mark, indent, number := "", "", 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimRight(line, "\n")
		m := fence.FindStringSubmatch(line)
		switch {
		case open != nil && m != nil && strings.TrimSpace(m[2]) == "":
			all = append(all, *open)
			open, mark = nil, ""
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		case m != nil:
			indent = m[1]
			lang, rest, _ := strings.Cut(strings.TrimSpace(m[2]), " ")
			open = &block{page: page, line: number, lang: lang, mark: mark, args: map[string]string{}}
			for _, arg := range infoArg.FindAllStringSubmatch(rest, -1) {
				open.args[arg[1]] = arg[2] + arg[3]
			}
		case strings.TrimSpace(line) != "":
			mark = ""
			if m := testMark.FindStringSubmatch(line); m != nil {
				mark = m[1]
			}
		}
	}
	if open != nil {
		t.Errorf("%v: the block has no end", open)
	}
	return all
}

// testers is the text of everything that may run a block by its name.
func testers(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	for _, pattern := range []string{"../scripts/test*", "../scripts/ship/*", "../house/*_test.go", "../e2e/*_test.go", "../*/*_test.go", "../deploy/ci/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if data, err := os.ReadFile(name); err == nil {
				text.Write(data)
			}
		}
	}
	return text.String()
}

// TestDocumentBlocks fails when commands of a document are run by no test.
func TestDocumentBlocks(t *testing.T) {
	known := []string{"run", "each", "until", "expect", "exits", "in", "env", "as", "ends"}
	text, commands := testers(t), 0
	for _, page := range documents(t) {
		for _, b := range blocks(t, page) {
			switch {
			case b.lang == "":
				t.Errorf("%v says no language: sh for commands that a test runs, console for others, text for no commands", b)
			case slices.Contains([]string{"bash", "shell", "zsh", "shell-session"}, b.lang):
				t.Errorf("%v is %s: want sh, or console for what no test can run", b, b.lang)
			case b.lang != "sh":
				if b.has("run") || b.mark != "" && !regexp.MustCompile(`\b`+regexp.QuoteMeta(b.mark)+`\b`).MatchString(text) {
					t.Errorf("%v is no block of commands that a test runs", b)
				}
			case b.mark != "":
				commands++
				if !regexp.MustCompile(`\b` + regexp.QuoteMeta(b.mark) + `\b`).MatchString(text) {
					t.Errorf("%v: no test is named %s", b, b.mark)
				}
			case !b.has("run"):
				t.Errorf("%v is run by no test: make it sh run, or console if no test can run it", b)
			default:
				commands++
				for arg := range maps.Keys(b.args) {
					if !slices.Contains(known, arg) {
						t.Errorf("%v: nobody knows %q", b, arg)
					}
				}
			}
		}
	}
	if commands < 20 {
		t.Errorf("only %d blocks of commands were found", commands)
	}
}

// TestDocumentLinks fails when a page leads to a file or heading that is not
// there.
func TestDocumentLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fenced := regexp.MustCompile("(?ms)^\\s*```.*?^\\s*```\\s*$")
	for _, page := range documents(t) {
		data, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(page)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(data), ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			name, anchor, _ := strings.Cut(m[1], "#")
			target := filepath.Join("..", filepath.FromSlash(page))
			if name != "" {
				target = filepath.Join("..", filepath.FromSlash(page), "..", filepath.FromSlash(name))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s leads to %s: %v", page, m[1], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(t, target), anchor) {
				t.Errorf("%s leads to %s, which has no such heading", page, m[1])
			}
		}
	}
}

// anchors lists the headings of a page as they stand in links.
func anchors(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(data), -1) {
		name := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(strings.ToLower(m[1]), "$1")
		name = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(name, "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}
