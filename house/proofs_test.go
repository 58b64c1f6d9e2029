package house_test

import (
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestProofsAreThere: what the documents call proved by a test, as
// `FOLDER.TestName`, is proved by one that there is.
func TestProofsAreThere(t *testing.T) {
	repo := loadRepository(t)
	tests, pages := map[string]bool{}, []string{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, name := range repo.files(t) {
		switch {
		case strings.HasSuffix(name, "_test.go"):
			for _, match := range function.FindAllStringSubmatch(string(readFile(t, filepath.Join(repo.root, name))), -1) {
				tests[path.Base(path.Dir(name))+"."+match[1]] = true
			}
		case strings.HasSuffix(name, ".md"):
			pages = append(pages, name)
		}
	}
	named := 0
	for _, page := range pages {
		for _, match := range regexp.MustCompile("`(\\w+\\.Test\\w+)`").FindAllStringSubmatch(string(readFile(t, filepath.Join(repo.root, page))), -1) {
			named++
			if !tests[match[1]] {
				t.Errorf("%s names %s, which is no test", page, match[1])
			}
		}
	}
	if named == 0 {
		t.Error("no document names a test")
	}
}
