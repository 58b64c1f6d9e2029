//go:build unix && engine

package container_test

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
	conformance(t, &world{
		host: host, shell: "localhost/converge-shell:latest", empty: "localhost/converge-empty:latest", many: 50, bulk: 4 << 20, real: true,
		left: func(t *testing.T) []string { return e.Labelled(t, container.LabelOwner) },
	})
}

// BenchmarkExec measures a command in a container that runs, from the request to
// the status: compare docker exec CONTAINER true.
func BenchmarkExec(b *testing.B) {
	w := &world{host: os.Getenv("CONVERGE_TEST_ENGINE")}
	_, c := connect(b, w.config("localhost/converge-shell:latest"))
	b.Logf("container %s", c.ContainerID())
	for b.Loop() {
		r := session(b, c).exec("true")
		_ = r.in.Close()
		if status := r.wait(); status != 0 {
			b.Fatalf("status %d", status)
		}
		r.OnClose()
	}
}
