//go:build unix

package container_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	dockercontainer "github.com/moby/moby/api/types/container"

	"example.com/converge/container"
	"example.com/converge/container/enginetest"
)

// Nor does one that ends while the engine is slow to make it.
func TestGoneAtCreate(t *testing.T) {
	e, w := fake(t)
	at, slow := make(chan struct{}), make(chan struct{})
	e.Fault = on("containers/create", func(int64, http.ResponseWriter, *http.Request) bool {
		close(at)
		<-slow
		return false
	})
	e.Start()
	h, err := container.New(client, "c", w.config("shell"), logger(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	begun, gone := make(chan error, 1), make(chan struct{})
	go func() {
		_, err := h.OnHandshakeSuccess("user")
		begun <- err
	}()
	<-at
	go func() {
		defer close(gone)
		h.OnDisconnect()
	}()
	close(slow)
	<-gone
	<-begun
	w.none(t)
}

// TestLateCreate: an engine that goes on making a container when nobody waits for it
// any more does not keep it.
func TestLateCreate(t *testing.T) {
	e, w := fake(t)
	asked := make(chan struct{})
	remove := on("DELETE", func(n int64, rw http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			enginetest.Say(rw, http.StatusNotFound, "no such container")
			close(asked)
		}
		return n == 1
	})
	e.Fault = func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/containers/create") {
			<-asked // when the limit is over
		}
		return remove(rw, r)
	}
	e.Start()
	before := container.Open()
	cfg := w.config("shell")
	cfg.Timeouts.ContainerStart = container.Duration(time.Second)
	fails(t, cfg, "create the container")
	w.none(t)
	if n := container.Open(); n != before {
		t.Errorf("%d containers are counted as open, and were %d", n, before)
	}
}

// TestHardening: what is said of capabilities and security adds to what is safe.
func TestHardening(t *testing.T) {
	e, w := fake(t)
	e.Start()
	for name, c := range map[string]struct {
		add, drop, opts    []string
		privileged, as     bool
		wantDrop, wantOpts string
	}{
		"nothing":       {wantDrop: "CAP_AUDIT_WRITE CAP_MKNOD CAP_NET_RAW", wantOpts: "no-new-privileges"},
		"one dropped":   {drop: []string{"CHOWN"}, wantDrop: "CHOWN CAP_AUDIT_WRITE CAP_MKNOD CAP_NET_RAW", wantOpts: "no-new-privileges"},
		"one added":     {add: []string{"SYS_PTRACE"}, wantDrop: "CAP_AUDIT_WRITE CAP_MKNOD CAP_NET_RAW", wantOpts: "no-new-privileges"},
		"one had again": {add: []string{"net_raw"}, drop: []string{"cap_mknod"}, wantDrop: "cap_mknod CAP_AUDIT_WRITE", wantOpts: "no-new-privileges"},
		"all dropped":   {drop: []string{"ALL"}, wantDrop: "ALL", wantOpts: "no-new-privileges"},
		"all added":     {add: []string{"ALL"}, wantOpts: "no-new-privileges"},
		"privileged":    {privileged: true, wantOpts: "no-new-privileges"},
		"a profile":     {opts: []string{"seccomp=x"}, wantDrop: "CAP_AUDIT_WRITE CAP_MKNOD CAP_NET_RAW", wantOpts: "seccomp=x no-new-privileges"},
		"new ones":      {opts: []string{"no-new-privileges:false"}, wantDrop: "CAP_AUDIT_WRITE CAP_MKNOD CAP_NET_RAW", wantOpts: "no-new-privileges:false"},
		"as it is":      {as: true, drop: []string{"CHOWN"}, wantDrop: "CHOWN"},
	} {
		cfg := w.config("shell")
		host := &cfg.Execution.Host
		host.CapAdd, host.CapDrop, host.SecurityOpt, host.Privileged, cfg.Execution.Unhardened = c.add, c.drop, c.opts, c.privileged, c.as
		connect(t, cfg)
		all := e.Created()
		made := all[len(all)-1].HostConfig
		if got := strings.Join(made.CapDrop, " "); got != c.wantDrop {
			t.Errorf("%s: dropped %q, want %q", name, got, c.wantDrop)
		}
		if got := strings.Join(made.SecurityOpt, " "); got != c.wantOpts {
			t.Errorf("%s: security %q, want %q", name, got, c.wantOpts)
		}
		if !slices.Equal(host.CapDrop, c.drop) || !slices.Equal(host.SecurityOpt, c.opts) {
			t.Errorf("%s: the configuration was changed", name)
		}
	}
}

// TestOtherPlatform: an image that is there for another platform is not the one that
// is asked for.
func TestOtherPlatform(t *testing.T) {
	e, w := fake(t)
	e.Images["shell"] = enginetest.Image{Cmd: []string{"/bin/sh"}, Architecture: "arm64"}
	e.Registry = map[string]enginetest.Image{"shell": {Cmd: []string{"/bin/sh"}}}
	e.Start()
	cfg := w.config("shell")
	cfg.Execution.ImagePullPolicy = container.PullIfNotPresent
	cfg.Execution.Platform.OS, cfg.Execution.Platform.Architecture = "linux", "amd64"
	for range 2 {
		_, c := connect(t, cfg)
		session(t, c).exec("echo works").ends(0, "works\n", "")
	}
	if n := len(e.Pulled()); n != 1 {
		t.Errorf("pulled %d times", n)
	}
}

// TestSessionSFTP: also where the image has the guest, sftp works in a container of
// its own.
func TestSessionSFTP(t *testing.T) {
	e, w := fake(t)
	e.Paths = map[string]string{"/opt/agent": guestFile}
	e.Start()
	cfg := w.config("shell")
	cfg.Execution.AgentPath, cfg.Execution.Mode = "/opt/agent", container.ModeSession
	_, c := connect(t, cfg)
	if server := guestIn(t, c); server == "" {
		t.Error("there is no server")
	}
	made := slices.IndexFunc(e.Created(), func(r dockercontainer.CreateRequest) bool {
		return strings.HasPrefix(r.Entrypoint[0], "/.converge/guest-") && slices.Equal(r.Cmd, []string{"sftp-server"})
	})
	if made < 0 {
		t.Errorf("containers %+v", e.Created())
	}
}
