package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/apicall"
	"example.com/converge/pkg/nomadtest"
)

// world is a forge with a repository acme/app, which acme and reader may read and
// stranger may not, and a commit in it.
type world struct {
	url, path, commit      string
	acme, reader, stranger string // tokens
	statuses               func(t *testing.T) []map[string]any
}

// TestGitea is what the fake and a real Gitea have in common; the real one is used,
// too, where GITEA_BIN names it.
func TestGitea(t *testing.T) {
	t.Run("fake", func(t *testing.T) {
		g := nomadtest.NewGitea(t)
		g.AddUser("reads", nomadtest.User{ID: 2, Login: "reader", Reads: []string{"acme/app"}})
		g.AddUser("none", nomadtest.User{ID: 3, Login: "stranger"})
		contract(t, world{url: g.URL, path: "acme/app", commit: sha, acme: g.Token, reader: "reads", stranger: "none", statuses: func(*testing.T) (all []map[string]any) {
			for _, s := range g.Statuses("acme/app", sha) {
				all = append(all, map[string]any{"status": s.State, "context": s.Context, "description": s.Description, "target_url": s.Target})
			}
			return all
		}})
	})
	if program := os.Getenv("GITEA_BIN"); program != "" {
		t.Run("real", func(t *testing.T) { contract(t, startGitea(t, program)) })
	}
}

func contract(t *testing.T, w world) {
	t.Helper()
	c, err := NewClient(Config{Kind: Gitea, URL: w.url, Token: w.acme, UserAgent: "converge-test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	long := strings.Repeat("é", 300)
	for _, state := range []State{Pending, Running, Failure, Error, Success, Success} {
		s := Status{State: state, Context: "Albatros default", Description: long, Target: "https://ci.example/build?job=builder%2Fdispatch-1"}
		if err := c.SetStatus(t.Context(), w.path, w.commit, s); err != nil {
			t.Errorf("%s: %v", state, err)
		}
	}
	all := w.statuses(t)
	if len(all) != 6 {
		t.Fatalf("%d statuses", len(all))
	}
	for i, want := range []string{"pending", "pending", "failure", "error", "success", "success"} {
		s := all[i]
		if s["status"] != want || s["context"] != "Albatros default" || s["target_url"] != "https://ci.example/build?job=builder%2Fdispatch-1" || len([]rune(s["description"].(string))) != otherDescription {
			t.Errorf("%v, want %s", s, want)
		}
	}
	for _, who := range []struct {
		token, login string
		may          bool
	}{{w.reader, "reader", true}, {w.stranger, "stranger", false}} {
		as := c.As(who.token)
		if u, err := as.User(t.Context()); err != nil || u.Login != who.login || !IsNumber(u.ID) {
			t.Errorf("%s: %+v, %v", who.login, u, err)
		}
		if may, err := as.MayRead(t.Context(), w.path); err != nil || may != who.may {
			t.Errorf("%s: %v, %v", who.login, may, err)
		}
		if may, err := as.MayRead(t.Context(), "acme/none"); err != nil || may {
			t.Errorf("%s may read what is not there: %v, %v", who.login, may, err)
		}
	}
	// A token that is none, and one that may not write.
	if _, err := c.As("nonsense").User(t.Context()); !errors.Is(err, ErrToken) {
		t.Errorf("%v", err)
	}
	if _, err := c.As("nonsense").MayRead(t.Context(), w.path); !errors.Is(err, ErrToken) {
		t.Errorf("%v", err)
	}
	for _, token := range []string{"nonsense", w.reader, w.stranger} {
		err := c.As(token).SetStatus(t.Context(), w.path, w.commit, Status{State: Success, Context: "x"})
		var e *apicall.Error
		if !errors.As(err, &e) || e.Retry || !e.Gone() || strings.Contains(err.Error(), token) {
			t.Errorf("%v", err)
		}
	}
	if len(w.statuses(t)) != 6 {
		t.Error("somebody set a status who may not")
	}
}

// startGitea starts one with a database of its own, and fills it.
func startGitea(t *testing.T, program string) world {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	w := world{url: "http://127.0.0.1:" + port, path: "acme/app"}
	config := filepath.Join(dir, "app.ini")
	// A build without its assets inside finds them beside itself.
	static := os.Getenv("GITEA_STATIC")
	if static == "" {
		static = filepath.Dir(program)
	}
	settings := fmt.Sprintf("RUN_MODE = prod\nWORK_PATH = %[1]s\n[server]\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = %[2]s\nROOT_URL = %[3]s/\nOFFLINE_MODE = true\nDISABLE_SSH = true\nSTATIC_ROOT_PATH = %[4]s\n"+
		"[database]\nDB_TYPE = sqlite3\nPATH = %[1]s/gitea.db\n[security]\nINSTALL_LOCK = true\nSECRET_KEY = x\n[log]\nLEVEL = warn\nROOT_PATH = %[1]s\n[repository]\nROOT = %[1]s/repos\n[service]\nDISABLE_REGISTRATION = true\n",
		dir, port, w.url, static)
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	gitea := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), program, append([]string{"--config", config}, args...)...)
		cmd.Env = append(os.Environ(), "GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT=true", "HOME="+dir)
		return cmd
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := gitea(args...).Output()
		if err != nil {
			t.Fatalf("gitea %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("migrate")
	tokens := map[string]string{}
	for _, user := range []string{"acme", "reader", "stranger"} {
		args := []string{"admin", "user", "create", "--username", user, "--password", "pass-" + user + "-1", "--email", user + "@example.com", "--must-change-password=false"}
		if user == "acme" {
			args = append(args, "--admin")
		}
		run(args...)
		tokens[user] = run("admin", "user", "generate-access-token", "--username", user, "--scopes", "all", "--token-name", "test", "--raw")
	}
	w.acme, w.reader, w.stranger = tokens["acme"], tokens["reader"], tokens["stranger"]
	var log bytes.Buffer
	server := gitea("web")
	server.Stdout, server.Stderr = &log, &log
	server.Cancel = func() error { return server.Process.Signal(os.Interrupt) }
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(os.Interrupt)
		_ = server.Wait()
		if t.Failed() {
			t.Logf("Gitea says\n%s", log.String())
		}
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(method, path string, body any) (any, error) {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(t.Context(), method, w.url+"/api/v1"+path, bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		req.Header = Header(Gitea, w.acme)
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode/100 != 2 {
			return nil, fmt.Errorf("%s %s: %s %s %v", method, path, resp.Status, answer, err)
		}
		var said any
		if len(answer) > 0 {
			err = json.Unmarshal(answer, &said)
		}
		return said, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err = ask("GET", "/version", nil); err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("Gitea does not serve within two minutes: %v\n%s", err, log.String())
		}
	}
	must := func(method, path string, body any) any {
		t.Helper()
		said, err := ask(method, path, body)
		if err != nil {
			t.Fatal(err)
		}
		return said
	}
	must("POST", "/user/repos", map[string]any{"name": "app", "private": true, "auto_init": true, "default_branch": "main"})
	must("PUT", "/repos/acme/app/collaborators/reader", map[string]any{"permission": "read"})
	w.commit = must("GET", "/repos/acme/app/branches/main", nil).(map[string]any)["commit"].(map[string]any)["id"].(string)
	w.statuses = func(t *testing.T) (all []map[string]any) {
		t.Helper()
		for _, s := range must("GET", "/repos/acme/app/commits/"+w.commit+"/statuses?sort=leastindex&limit=50", nil).([]any) {
			all = append(all, s.(map[string]any))
		}
		return all
	}
	return w
}
