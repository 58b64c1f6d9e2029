package frame

import (
	"bufio"
	"bytes"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// python returns an interpreter that has the websockets package, which is
// Debian's python3-websockets.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import websockets").Run() == nil {
			return name
		}
	}
	t.Fatal("no python3 has the package websockets: install python3-websockets")
	return ""
}

func TestIndependentClient(t *testing.T) {
	ended := make(chan error, 1)
	url, _ := newServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		echo(w, r)
		ended <- nil
	})
	out, err := exec.CommandContext(t.Context(), python(t), "testdata/client.py", url).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	await(t, "the echo", ended)
}

func TestIndependentServer(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), python(t), "testdata/server.py")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	lines.Scan()
	conn, err := Dial(t.Context(), "ws://127.0.0.1:"+lines.Text(), &http.Transport{}, nil, Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	echoed(t, conn, randomBytes(t, 8<<20))
	if err := conn.CloseWith(4002, "enough"); err != nil {
		t.Fatal(err)
	}
	lines.Scan()
	if got := strings.TrimSpace(lines.Text()); got != "4002 enough" {
		t.Errorf("the server saw the end as %q", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, stderr.String())
	}
}
