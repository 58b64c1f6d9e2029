//go:build unix

package container_test

import (
	"testing"

	"example.com/converge/container/enginetest"
)

// fake is an engine of this test's own.
func fake(t *testing.T) (*enginetest.Engine, *world) {
	e := enginetest.New(t)
	e.Images = map[string]enginetest.Image{
		"shell": {Cmd: []string{"/bin/sh"}, Entrypoint: []string{"/usr/bin/env"}},
		"empty": {NoShell: true},
	}
	return e, &world{
		host: e.Host(), shell: "shell", empty: "empty", many: 50, bulk: 4 << 20,
		left: func(*testing.T) []string { return e.Containers() },
	}
}

func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name, version string
		split         bool
		bulk          int
	}{{"plain", "1.41", false, 4 << 20}, {"split", "1.43", true, 50_000}} {
		t.Run(c.name, func(t *testing.T) {
			e, w := fake(t)
			e.Version, e.Split, w.bulk = c.version, c.split, c.bulk
			e.Start()
			conformance(t, w)
		})
	}
}
