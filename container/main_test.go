//go:build unix

package container_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// guestFile is the guest of the tests, for containers of this machine's
// architecture.
var guestFile string

func TestMain(m *testing.M) {
	if order := os.Getenv(childVariable); order != "" {
		guestFile = os.Getenv("CONVERGE_TEST_GUEST")
		os.Exit(child(order))
	}
	folder, err := os.MkdirTemp("", "guest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	guestFile = filepath.Join(folder, "guest")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", guestFile, "example.com/converge/container/internal/guesttest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the guest: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
