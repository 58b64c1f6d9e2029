//go:build unix

package container_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/converge/container"
	"example.com/converge/container/enginetest"
)

// TestCheck: what is known at the start is said then, and what may come right is not.
func TestCheck(t *testing.T) {
	e, w := fake(t)
	e.Registry = map[string]enginetest.Image{"later": {}}
	e.Start()
	_, c := connect(t, w.config("shell"))
	for name, test := range map[string]struct {
		change func(*container.Config)
		want   string
	}{
		"an image":           {func(c *container.Config) { c.Execution.Image = "shell" }, ""},
		"one to pull":        {func(c *container.Config) { c.Execution.Image, c.Execution.ImagePullPolicy = "later", "" }, ""},
		"one that is not":    {func(c *container.Config) { c.Execution.Image = "later" }, "No such image"},
		"a container":        {func(x *container.Config) { x.Execution.Existing = c.ContainerID() }, ""},
		"none":               {func(x *container.Config) { x.Execution.Existing = "nosuch" }, "nosuch"},
		"none of that label": {func(x *container.Config) { x.Execution.Existing = "label=a=b" }, "label a=b"},
		"no socket":          {func(c *container.Config) { c.Execution.Image, c.Connection.Host = "shell", "unix:///no/such" }, "no such file"},
	} {
		cfg := w.config("")
		test.change(&cfg)
		if err := container.Check(t.Context(), cfg); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}

	// An engine that is busy is waited for, and then it is no mistake.
	e.Fault = func(rw http.ResponseWriter, _ *http.Request) bool {
		enginetest.Say(rw, http.StatusServiceUnavailable, "busy")
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := container.Check(ctx, w.config("shell")); err != nil {
		t.Error(err)
	}
	e.Fault = nil
}
