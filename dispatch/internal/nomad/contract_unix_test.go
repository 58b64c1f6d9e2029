//go:build unix

package nomad

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"go.uber.org/goleak"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/pkg/nomadtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is what the builders of this suite run, by flavour.
const script = `case $NOMAD_META_FLAVOR in
ok) echo out; echo err >&2; cat local/payload 2>/dev/null; exit 0 ;;
fail) echo out; exit 3 ;;
killed) kill -9 $$ ;;
slow) echo first; exec sleep 600 ;;
esac`

// patience bounds every wait; it decides no test that is right.
const patience = 2 * time.Minute

// target is a Nomad that the suite is run against.
type target struct {
	name, address string
	// broken is a job whose task cannot start, "" where there is none.
	broken string
	// collect makes Nomad forget a build.
	collect func(t *testing.T, id string)
}

// TestTokenStays: the token is for the Nomad that was named, not for where that one
// sends us.
func TestTokenStays(t *testing.T) {
	asked := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked = true
		_, _ = w.Write([]byte(`"leader"`))
	}))
	t.Cleanup(elsewhere.Close)
	at := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(at.Close)
	c, err := New(settings.Nomad{Address: at.URL, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Check(t.Context()); err == nil || asked {
		t.Errorf("the redirect was followed: %v", err)
	}
}

// TestContract is what dispatch relies on, at the fake and, where NOMAD_BIN names
// one, at a real Nomad.
func TestContract(t *testing.T) {
	targets := []func(*testing.T) target{fake}
	if bin := os.Getenv("NOMAD_BIN"); bin != "" {
		targets = append(targets, func(t *testing.T) target { return real(t, bin) })
	}
	for _, make := range targets {
		at := make(t)
		t.Run(at.name, func(t *testing.T) { suite(t, at) })
	}
}

func fake(t *testing.T) target {
	n := nomadtest.NewNomad(t)
	n.Register(nomadtest.Builder("builder", "EXTRA"))
	n.RunScripts(nomadtest.Exec{Command: []string{"/bin/sh", "-c", script}, Dir: t.TempDir()}.Run)
	return target{name: "fake", address: n.URL, collect: func(_ *testing.T, id string) { n.Collect(id) }}
}

// free returns a port that nobody listened on a moment ago.
func free(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// real starts a Nomad in development mode.
func real(t *testing.T, bin string) target {
	dir := t.TempDir()
	port := free(t)
	config := fmt.Sprintf(`ports { http = %d rpc = %d serf = %d }
plugin "raw_exec" { config { enabled = true } }`, port, free(t), free(t))
	if err := os.WriteFile(filepath.Join(dir, "agent.hcl"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), bin, "agent", "-dev", "-bind=127.0.0.1", "-config="+filepath.Join(dir, "agent.hcl"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("http://127.0.0.1:%d", port)
	put := func(path string, body any) error {
		text, _ := json.Marshal(body)
		req, _ := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPut, address+path, bytes.NewReader(text))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", resp.Status, answer)
		}
		return nil
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	job := func(id, command string) map[string]any {
		return map[string]any{"Job": map[string]any{
			"ID": id, "Name": id, "Type": "batch", "Namespace": "ci", "Datacenters": []string{"*"},
			"ParameterizedJob": map[string]any{"Payload": "optional", "MetaRequired": Keys, "MetaOptional": []string{"EXTRA"}},
			"TaskGroups": []map[string]any{{
				"Name": Group, "RestartPolicy": map[string]any{"Attempts": 0, "Mode": "fail"}, "ReschedulePolicy": map[string]any{"Attempts": 0, "Unlimited": false},
				"Tasks": []map[string]any{{
					"Name": Task, "Driver": "raw_exec", "Config": map[string]any{"command": command, "args": []string{"local/script"}},
					"DispatchPayload": map[string]any{"File": "payload"}, "Resources": map[string]any{"CPU": 20, "MemoryMB": 32},
					"Templates": []map[string]any{{"EmbeddedTmpl": script, "DestPath": "local/script"}},
				}},
			}},
		}}
	}
	for {
		err := put("/v1/namespace/ci", map[string]any{"Name": "ci"})
		if err == nil {
			err = put("/v1/jobs", job("builder", "/bin/sh"))
		}
		if err == nil {
			break
		}
		if time.Until(deadline(t)) < 0 {
			t.Fatalf("Nomad does not serve: %v", err)
		}
	}
	if err := put("/v1/jobs", job("broken", "/nowhere/at/all")); err != nil {
		t.Fatal(err)
	}
	return target{name: "real", address: address, broken: "broken", collect: func(t *testing.T, id string) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodDelete, address+"/v1/job/"+id+"?purge=true&namespace=ci", nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if err := put("/v1/system/gc", nil); err != nil {
			t.Fatal(err)
		}
	}}
}

var begun = time.Now()

func deadline(*testing.T) time.Time { return begun.Add(patience) }

func meta(flavor string) map[string]string {
	return map[string]string{"REPO_URL": "https://h/p.git", "COMMIT": "c", "BRANCH": "b", "FLAVOR": flavor}
}

// until follows a build by blocking queries until it stands as is says.
func until(t *testing.T, c *Client, id, job string, is func(Verdict) bool) Verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var v Verdict
	var index uint64
	for {
		allocs, next, err := c.Allocations(ctx, index)
		if err != nil {
			t.Fatalf("%v, last %+v", err, v)
		}
		index = next
		child, err := c.Child(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if child.Parent != job {
			t.Fatalf("%+v", child)
		}
		if v = Judge(child, allocs[id]); is(v) {
			return v
		}
	}
}

func over(v Verdict) bool { return v.Over }

func suite(t *testing.T, at target) {
	c, err := New(settings.Nomad{Address: at.address, Namespace: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	if err := c.Check(ctx); err != nil {
		t.Fatal(err)
	}
	dispatch := func(job, flavor string, payload string) string {
		t.Helper()
		id, err := c.Dispatch(ctx, job, meta(flavor), []byte(payload), "")
		if err != nil || !IsChild(id, job) {
			t.Fatalf("%q, %v", id, err)
		}
		return id
	}
	read := func(allocation string, log build.Stream, offset int64) string {
		t.Helper()
		r, err := c.Log(ctx, allocation, log, offset, false)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	t.Run("contract", func(t *testing.T) {
		k, err := c.Contract(ctx, "builder")
		if err != nil || len(k.Problems) > 0 || len(k.Advice) > 0 || !k.Permits("EXTRA") || k.Permits("OTHER") || k.Payload != "optional" {
			t.Errorf("%+v, %v", k, err)
		}
		if _, err := c.Contract(ctx, "none"); !errors.Is(err, ErrNoJob) {
			t.Error(err)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		if _, err := c.Dispatch(ctx, "none", meta("ok"), nil, ""); !errors.Is(err, ErrNoJob) {
			t.Errorf("unknown job: %v", err)
		}
		if _, err := c.Dispatch(ctx, "builder", map[string]string{"FLAVOR": "ok"}, nil, ""); !errors.Is(err, ErrContract) {
			t.Errorf("missing meta: %v", err)
		}
		more := meta("ok")
		more["OTHER"] = "x"
		if _, err := c.Dispatch(ctx, "builder", more, nil, ""); !errors.Is(err, ErrContract) {
			t.Errorf("other meta: %v", err)
		}
		_, _, err := c.api.Jobs().Dispatch("builder", meta("ok"), make([]byte, MaxPayload+1), "", (&api.WriteOptions{}).WithContext(ctx))
		if err = c.mistake("dispatch", err); !errors.Is(err, ErrPayload) {
			t.Errorf("payload: %v", err)
		}
		if _, err := c.Child(ctx, "builder/dispatch-1-none"); !errors.Is(err, ErrNoJob) {
			t.Errorf("unknown build: %v", err)
		}
		if a, err := c.AllocationOf(ctx, "builder/dispatch-1-none"); err != nil || a != nil {
			t.Errorf("its allocation: %v, %v", a, err)
		}
		if _, err := c.Log(ctx, "3e2f9a6e-5f6b-4a55-9d5a-0c5a4d2b1f00", build.Stdout, 0, false); !errors.Is(err, ErrNoLog) {
			t.Errorf("its log: %v", err)
		}
	})
	t.Run("once", func(t *testing.T) {
		a, errA := c.Dispatch(ctx, "builder", meta("ok"), nil, "token-1")
		b, errB := c.Dispatch(ctx, "builder", meta("ok"), nil, "token-1")
		if errA != nil || errB != nil || a != b {
			t.Errorf("%q %q, %v %v", a, b, errA, errB)
		}
	})
	t.Run("success", func(t *testing.T) {
		id := dispatch("builder", "ok", "pay\x00load\n")
		v := until(t, c, id, "builder", over)
		if v.State != build.Success || v.Exit != 0 || v.Started.IsZero() || v.Ended.Before(v.Started) {
			t.Errorf("%+v", v)
		}
		if out, rest, err := read(v.Allocation, build.Stdout, 0), read(v.Allocation, build.Stdout, 4), read(v.Allocation, build.Stderr, 0); out != "out\npay\x00load\n" || rest != "pay\x00load\n" || err != "err\n" {
			t.Errorf("%q %q %q", out, rest, err)
		}
		children, _, err := c.Children(ctx, "builder", 0)
		found := false
		for _, child := range children {
			if child.ID == id {
				found = child.Meta["FLAVOR"] == "ok" && child.Meta["COMMIT"] == "c" && !child.Submitted.IsZero()
			}
		}
		if err != nil || !found {
			t.Errorf("%+v, %v", children, err)
		}
		at.collect(t, id)
		// An allocation's machine forgets it some time after the server.
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		for {
			r, err := c.Log(ctx, v.Allocation, build.Stdout, 0, false)
			if errors.Is(err, ErrNoLog) {
				break
			}
			if err != nil {
				t.Errorf("a log that is gone: %v", err)
				break
			}
			_ = r.Close()
		}
	})
	t.Run("failure", func(t *testing.T) {
		if v := until(t, c, dispatch("builder", "fail", ""), "builder", over); v.State != build.Failure || v.Reason != "exit 3" || v.Exit != 3 {
			t.Errorf("%+v", v)
		}
		if v := until(t, c, dispatch("builder", "killed", ""), "builder", over); v.State != build.Failure || v.Exit == 0 {
			t.Errorf("%+v", v)
		}
	})
	t.Run("followed and stopped", func(t *testing.T) {
		id := dispatch("builder", "slow", "")
		v := until(t, c, id, "builder", func(v Verdict) bool { return v.State == build.Running })
		following, cancel := context.WithCancel(ctx)
		defer cancel()
		r, err := c.Log(following, v.Allocation, build.Stdout, 0, true)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		got := make([]byte, 6)
		if _, err := io.ReadFull(r, got); err != nil || string(got) != "first\n" {
			t.Fatalf("%q, %v", got, err)
		}
		if err := c.Stop(ctx, id); err != nil {
			t.Fatal(err)
		}
		if v = until(t, c, id, "builder", over); v.State != build.Failure || v.Reason != ReasonCancelled {
			t.Errorf("%+v", v)
		}
		if err := c.Stop(ctx, "builder/dispatch-1-none"); err != nil && !errors.Is(err, ErrNoJob) {
			t.Errorf("stopping nothing: %v", err)
		}
	})
	if at.broken != "" {
		t.Run("driver", func(t *testing.T) {
			if v := until(t, c, dispatch(at.broken, "ok", ""), at.broken, over); v.State != build.Error || v.Started != (time.Time{}) {
				t.Errorf("%+v", v)
			} else {
				t.Log(v.Reason)
			}
		})
	}
}
