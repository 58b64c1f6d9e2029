//go:build linux && engine

package sshd

import (
	"os"
	"testing"

	"example.com/converge/container"
	"example.com/converge/container/enginetest"
)

// TestEngine is the suite against a real engine, the one at CONVERGE_TEST_ENGINE,
// unix://PATH, as scripts/engines starts it.
func TestEngine(t *testing.T) {
	host := os.Getenv("CONVERGE_TEST_ENGINE")
	e := enginetest.NewReal(t, host)
	e.Import(t, "converge-shell", enginetest.Busybox(t))
	e.Import(t, "converge-empty", enginetest.Archive(t, nil))
	suite(t, &world{
		engine: host, real: true, many: 50, bulk: 3 << 20,
		shell: "localhost/converge-shell:latest", empty: "localhost/converge-empty:latest",
		left: func() []string { return e.Labelled(t, container.LabelOwner) },
	})
}
