package house_test

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// maxLines is how long a Go file may be, in lines.
const maxLines = 500

// machinePath finds absolute paths that exist only where the code was written.
// It is put together so that it does not find itself.
var machinePath = regexp.MustCompile(`(^|[^\w.~/-])/(` + strings.Join([]string{"root", "work", "home/[a-z]+", "Users/[A-Za-z]+"}, "|") + `)/`)

// TestFiles checks what holds for every file.
func TestFiles(t *testing.T) {
	repo := loadRepository(t)
	for _, name := range repo.files(t) {
		data := readFile(t, filepath.Join(repo.root, name))
		if bytes.IndexByte(data, 0) >= 0 {
			continue
		}
		number := 0
		for line := range bytes.Lines(data) {
			number++
			if found := machinePath.Find(line); found != nil {
				t.Errorf("%s:%d: path of one machine: %s", name, number, bytes.TrimSpace(line))
			}
		}
		if strings.HasSuffix(name, ".go") && number > maxLines {
			t.Errorf("%s has %d lines, want at most %d: split it", name, number, maxLines)
		}
	}
}

// TestDocumentsNameTheCommands fails when a newcomer would not find the way.
func TestDocumentsNameTheCommands(t *testing.T) {
	repo := loadRepository(t)
	targets := string(readFile(t, filepath.Join(repo.root, "Makefile")))
	for name, wants := range map[string][]string{
		"README.md":       {"make run", "make test"},
		"CONTRIBUTING.md": {"make test", "make fuzz", "make tidy", "make rename"},
	} {
		text := string(readFile(t, filepath.Join(repo.root, name)))
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not name %q", name, want)
			}
		}
		// And what it names is there.
		for _, match := range regexp.MustCompile("(?m)(?:`|^)make ([a-z-]+)").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(targets, "\n"+match[1]+": ") {
				t.Errorf("%s names make %s, which the Makefile does not have", name, match[1])
			}
		}
	}
}
