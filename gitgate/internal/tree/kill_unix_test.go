//go:build unix

package tree_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gittest"
	"example.com/converge/gitgate/internal/tree"
	"example.com/converge/pkg/webhook"
)

// updateForever is the process that is killed: it updates again and again.
func updateForever() {
	c := &config.Repo{
		Name: "test", URL: os.Getenv("TREE_TEST_URL"), Directory: os.Getenv("TREE_TEST_UPDATE"), Publish: config.Publish(os.Getenv("TREE_TEST_PUBLISH")),
		Label: "master", Remote: "origin", Timeout: time.Minute,
	}
	c.Identity, _ = webhook.ParseRemote(c.URL)
	for {
		t, err := tree.Open(context.Background(), c, nil)
		if err == nil {
			_, err = t.Update(context.Background())
			t.Close()
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// TestKilled kills a process in the middle of updates, at any moment, the
// children not: after one more update all is right.
func TestKilled(t *testing.T) {
	for name, publish := range map[string]config.Publish{"in place": config.InPlace, "published": config.Symlink} {
		t.Run(name, func(t *testing.T) {
			r := gittest.New(t)
			for i := range 50 { // something to be in the middle of
				r.Write(fmt.Sprintf("many/%d", i), fmt.Sprint(i))
			}
			r.Push("master")
			c := follow(t, r, func(c *config.Repo) { c.Publish = publish })
			for round := range 8 {
				for i := range 50 {
					r.Write(fmt.Sprintf("many/%d", i), fmt.Sprint(round, i))
				}
				r.Commit()
				if round%4 == 3 { // the first clone as well
					for _, name := range []string{c.Directory, tree.StateDir(c.Directory)} {
						if err := os.RemoveAll(name); err != nil {
							t.Fatal(err)
						}
					}
				}
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), "TREE_TEST_UPDATE="+c.Directory, "TREE_TEST_URL="+c.URL, "TREE_TEST_PUBLISH="+string(publish))
				cmd.Stdout, cmd.Stderr = testWriter{t}, testWriter{t}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				// When does not decide whether it is right, only what is seen.
				<-time.After(time.Duration(20+rand.IntN(200)) * time.Millisecond)
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()
				if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
					t.Fatalf("it ended before it was killed: %v", cmd.ProcessState)
				}
				must(t, c)
				is(t, c, r)
			}
		})
	}
}
