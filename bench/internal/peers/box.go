//go:build linux

package peers

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"example.com/converge/bench/internal/proc"
)

// ErrNoEngine is in the error of StartBox where this machine has no container
// engine that answers, or nothing to make an image of.
var ErrNoEngine = errors.New("there is no container engine to measure")

// boxImage is the image that is made, and removed again.
const boxImage = "converge-bench:latest"

// Box is a container that runs, which the engine's own client reaches, and
// people by ssh through Converge.
type Box struct {
	// Line leads to an agent whose sessions run in the container.
	Line *Line
	// About names the engine and its version.
	About string

	lab    *Lab
	id     string
	master *proc.Process // the connection that is open
}

// Exec is the command line by which the engine's client runs a program there.
func (b *Box) Exec(program ...string) []string {
	return append([]string{"docker", "exec", b.id}, program...)
}

// Multiplexed is a command line of ssh that goes over a connection which is open
// already.
func (b *Box) Multiplexed(options ...string) []string {
	// Of an option that is there twice ssh takes the first.
	args := []string{"ssh", "-oControlPath=" + b.lab.path("control")}
	return append(args, b.Line.SSH("ssh", b.Line.Front, options...)[1:]...)
}

// open opens that connection.
func (b *Box) open(ctx context.Context) error {
	// The local command runs after the login, when ssh has begun to listen.
	args := b.Multiplexed("PermitLocalCommand=yes", "LocalCommand=echo ready")
	var err error
	b.master, _, err = started(ctx, regexp.MustCompile(`ready`), append([]string{"ssh", "-M", "-N"}, args[1:]...)...)
	return err
}

// StartBox makes a container of Debian's static busybox on the engine of this
// machine, and an agent that lets people into it.
func (l *Lab) StartBox(ctx context.Context) (*Box, error) {
	about, err := docker(ctx, nil, "version", "--format", "{{.Server.Version}}")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoEngine, err)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: busybox-static is not installed", ErrNoEngine)
	}
	root, err := rootOf(busybox)
	if err != nil {
		return nil, err
	}
	box := &Box{lab: l, About: "Docker " + about, Line: &Line{lab: l, user: l.user}}
	if _, err = docker(ctx, root, "import", "-", boxImage); err == nil {
		box.id, err = docker(ctx, nil, "run", "--detach", "--network", "none", boxImage, "/bin/sleep", "1000000")
	}
	if err == nil {
		err = box.Line.relay(l.startServer(ctx))
	}
	if err == nil {
		err = box.Line.converge(ctx, Setup{End: SSH}, "--container", box.id)
	}
	if err == nil {
		err = box.open(ctx)
	}
	if err != nil {
		box.Stop()
		return nil, err
	}
	return box, nil
}

// Stop removes the container and its image.
func (b *Box) Stop() {
	ctx := context.Background()
	if b.master != nil {
		b.master.Stop()
	}
	b.Line.Stop()
	if b.id != "" {
		_, _ = docker(ctx, nil, "rm", "--force", b.id)
	}
	_, _ = docker(ctx, nil, "rmi", "--force", boxImage)
}

// docker runs the engine's client, and returns what it prints.
func docker(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var diag strings.Builder
	cmd.Stderr = &diag
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", args[0], err, strings.TrimSpace(diag.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// rootOf is an archive with nothing but busybox in it.
func rootOf(busybox []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	headers := []tar.Header{
		{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(busybox))},
	}
	for _, name := range []string{"sh", "true", "sleep"} {
		headers = append(headers, tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"})
	}
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if h.Size > 0 {
			if _, err := w.Write(busybox); err != nil {
				return nil, err
			}
		}
	}
	return b.Bytes(), w.Close()
}
