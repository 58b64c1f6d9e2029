package tree_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
	"example.com/converge/gitgate/internal/gittest"
)

// diskSize is that of the disk that becomes full, in KiB.
const diskSize = 4 << 10

// TestFullDisk fills a disk of its own, in both modes: by what must be fetched, and
// by files that are larger than what is fetched. The old tree stays, and when there
// is room again the new one comes.
func TestFullDisk(t *testing.T) {
	if disk := os.Getenv("TREE_TEST_DISK"); disk != "" {
		fillDisk(t, disk)
		return
	}
	// A mount that nobody else sees; without being root, in a user's namespace.
	args := []string{"--mount"}
	if os.Geteuid() != 0 {
		args = append(args, "--map-root-user", "--user")
	}
	disk := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "unshare", append(args, os.Args[0], "-test.run=^TestFullDisk$", "-test.v")...)
	cmd.Env = append(os.Environ(), "TREE_TEST_DISK="+disk)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "    --- PASS: TestFullDisk/") != 4 {
		t.Errorf("%v:\n%s", err, out)
	}
}

func fillDisk(t *testing.T, disk string) {
	for name, fill := range map[string]func(r *gittest.Repo){
		"what is fetched": func(r *gittest.Repo) {
			noise, text := rand.NewChaCha8([32]byte{}), make([]byte, 2*diskSize<<10)
			_, _ = noise.Read(text)
			r.Write("large", string(text))
		},
		"files": func(r *gittest.Repo) {
			for i := range 4 {
				r.Write(fmt.Sprint("new/folder/", i), strings.Repeat("a", diskSize/2<<10))
			}
		},
	} {
		for _, publish := range []config.Publish{config.InPlace, config.Symlink} {
			t.Run(fmt.Sprintf("%s/%q", name, publish), func(t *testing.T) {
				if err := syscall.Mount("none", disk, "tmpfs", 0, fmt.Sprintf("size=%dk", diskSize)); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := syscall.Unmount(disk, 0); err != nil {
						t.Error(err)
					}
				})
				r := gittest.New(t)
				c := follow(t, r, func(c *config.Repo) {
					c.Directory, c.Publish = filepath.Join(disk, "site"), publish
				})
				must(t, c)
				good := gittest.Git(t, r.Work, "rev-parse", "HEAD")
				number := r.Number()
				fill(r)
				r.Commit()
				for range 2 {
					fails(t, c, gitcmd.Disk)
					if got := gittest.Git(t, c.Directory, "rev-parse", "HEAD"); got != good || gittest.Read(c.Directory, "a") != number {
						t.Fatalf("the tree is at %s, and a is %q", got, gittest.Read(c.Directory, "a"))
					}
					if got := gittest.Git(t, c.Directory, "--no-optional-locks", "status", "--porcelain"); got != "" {
						t.Fatalf("something is left: %s", got)
					}
				}
				if err := syscall.Mount("none", disk, "", syscall.MS_REMOUNT, fmt.Sprintf("size=%dk", 20*diskSize)); err != nil {
					t.Fatal(err)
				}
				must(t, c)
				is(t, c, r)
			})
		}
	}
}
