//go:build linux

package measures

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/converge/bench/internal/proc"
	"example.com/converge/bench/internal/table"
)

const (
	// Rows of the tables: gitgate, and the script that one would write.
	rowGitgate, rowGit = "gitgate", "git"
	colSame, colCommit = "nothing new", "one commit"

	colAnswered, colFetches, colBefore, colAfter = "ms until all are answered", "updates", "MiB before", "MiB after"

	// storm is how many webhooks come at once, and senders by how many clients.
	storm, senders = 1000, 20
	// pace is what gitgate leaves between two updates of one repository; it is not
	// what is measured.
	pace = 2100 * time.Millisecond
	// perRound is how many samples a round gives to each cell.
	perRound = 3

	updateSecret = "secret of the bench"
)

// update measures how soon a folder is at what was pushed, from the webhook on,
// beside what a script would do; and what a storm of webhooks costs.
func update(ctx context.Context, cfg Config) (sheets []*table.Sheet, err error) {
	latency := table.New("update", fmt.Sprintf("From a push to the updated folder, %d files: milliseconds", cfg.Files),
		"gitgate: from sending the signed webhook to the line in its log. git: `git fetch && git reset --hard` by a shell. The remote is a folder of this machine.", rowGit, colSame, colCommit)
	storms := table.New("storm", fmt.Sprintf("%d webhooks for one repository at once", storm),
		fmt.Sprintf("By %d clients, each webhook a delivery of its own. Resident memory (Pss) of gitgate.", senders), "", colAnswered, colFetches, colBefore, colAfter)
	sheets = []*table.Sheet{latency, storms}
	dir, err := os.MkdirTemp(cfg.Lab.Dir, "update-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := &remote{dir: dir, bare: filepath.Join(dir, "project.git"), plain: filepath.Join(dir, "plain")}
	if err := r.make(ctx, cfg.Files, 1+cfg.Rounds*perRound*2); err != nil {
		return nil, err
	}
	g, err := startGitgate(ctx, cfg, r)
	if err != nil {
		return nil, err
	}
	defer g.stop()
	both := func(column, line string, push bool) error {
		for i := range cfg.Rounds * perRound {
			cfg.Log("update: %s: %d of %d", column, i+1, cfg.Rounds*perRound)
			if push {
				if err := r.push(); err != nil {
					return err
				}
			}
			steps := []func() error{
				func() error {
					took, err := g.update(ctx, r, line)
					latency.Add(rowGitgate, column, took.Seconds()*1e3)
					return err
				},
				func() error {
					took, err := r.script(ctx)
					latency.Add(rowGit, column, took.Seconds()*1e3)
					return err
				},
			}
			for n := range steps { // in turns
				if err := lapse(ctx, pace); err != nil {
					return err
				}
				if err := steps[(n+i)%2](); err != nil {
					return err
				}
			}
		}
		return nil
	}
	latency.Row(rowGit)
	if err := both(colSame, "up to date", false); err != nil {
		return nil, err
	}
	if err := both(colCommit, "msg=updated", true); err != nil {
		return nil, err
	}
	for range cfg.Rounds {
		if err := lapse(ctx, pace); err != nil {
			return nil, err
		}
		if err := g.storm(ctx, r, storms); err != nil {
			return nil, err
		}
	}
	return sheets, nil
}

// remote is a bare repository with many files, whose branch moves along commits
// that differ in one of them, and a clone of it for the script.
type remote struct {
	dir, bare, plain string
	commits          []string
	at               int
}

func (r *remote) make(ctx context.Context, files, states int) error {
	var stream strings.Builder
	for n := range states {
		fmt.Fprintf(&stream, "commit refs/states\nmark :%d\ncommitter A <a@example.org> %d +0000\ndata 1\nx\n", n+1, 1_700_000_000+n)
		for i := range files {
			if text := fmt.Sprint(i, " ", n); n == 0 || i == 0 {
				fmt.Fprintf(&stream, "M 100644 inline d%d/f%d\ndata %d\n%s\n", i%100, i, len(text), text)
			}
		}
	}
	marks := filepath.Join(r.dir, "marks")
	for _, step := range []struct {
		in   string
		args []string
	}{
		{"", []string{"init", "--quiet", "--bare", "--initial-branch=master", r.bare}},
		{stream.String(), []string{"-C", r.bare, "fast-import", "--quiet", "--export-marks=" + marks}},
	} {
		if err := git(ctx, step.in, step.args...); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(marks)
	if err != nil {
		return err
	}
	r.commits = make([]string, states)
	for line := range strings.Lines(string(text)) {
		var n int
		var hash string
		if _, err := fmt.Sscanf(line, ":%d %s", &n, &hash); err != nil || n < 1 || n > states {
			return fmt.Errorf("git's marks cannot be read: %q", line)
		}
		r.commits[n-1] = hash
	}
	r.at = -1
	if err := r.push(); err != nil {
		return err
	}
	return git(ctx, "", "clone", "--quiet", "file://"+r.bare, r.plain)
}

// push moves the branch on.
func (r *remote) push() error {
	r.at++
	return os.WriteFile(filepath.Join(r.bare, "refs", "heads", "master"), []byte(r.commits[r.at]+"\n"), 0o644)
}

// script is what gitgate is compared with.
func (r *remote) script(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	cmd := exec.CommandContext(ctx, "sh", "-c", "git fetch --quiet && git reset --quiet --hard origin/master")
	cmd.Dir, cmd.Env = r.plain, gitEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("git: %w: %s", err, out)
	}
	took := time.Since(start)
	head, err := os.ReadFile(filepath.Join(r.plain, ".git", "refs", "heads", "master"))
	if err == nil && strings.TrimSpace(string(head)) != r.commits[r.at] {
		err = errShort
	}
	return took, err
}

func gitEnv() []string {
	return append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
}

func git(ctx context.Context, in string, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Stdin, cmd.Env = strings.NewReader(in), gitEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return nil
}

// gitgate is a running one, whose log comes line by line.
type gitgate struct {
	process *proc.Process
	address string
	log     *os.File
	client  *http.Client
	lines   chan string
	done    sync.WaitGroup
	sent    int
}

func startGitgate(ctx context.Context, cfg Config, r *remote) (g *gitgate, err error) {
	name, config := filepath.Join(r.dir, "log"), filepath.Join(r.dir, "config.yaml")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("listen: 127.0.0.1\nport: 0\nlogging: {output: %q}\nrepos:\n- {url: %q, path: /hook, directory: %q, secret: %q}\n",
		name, "file://"+r.bare, filepath.Join(r.dir, "site"), updateSecret)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	g = &gitgate{lines: make(chan string, 10*storm), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}}}
	// For both, so that the pipe does not end before there is somebody.
	if g.log, err = os.OpenFile(name, os.O_RDWR|syscall.O_NONBLOCK, 0); err != nil {
		return nil, err
	}
	g.done.Go(func() {
		scanner := bufio.NewScanner(g.log)
		for scanner.Scan() {
			g.lines <- scanner.Text()
		}
	})
	if g.process, err = proc.Start(cfg.Lab.Program("gitgate"), "--config", config); err != nil {
		g.stop()
		return nil, err
	}
	line, err := g.await(ctx, "msg=serving")
	if err == nil {
		_, g.address, _ = strings.Cut(line, "address=")
		g.address, _, _ = strings.Cut(g.address, " ")
		_, err = g.await(ctx, "msg=cloned")
	}
	if err != nil {
		err = fmt.Errorf("gitgate: %w: %s", err, g.process.Output())
		g.stop()
		return nil, err
	}
	return g, nil
}

func (g *gitgate) stop() {
	if g.process != nil {
		g.process.Stop()
	}
	g.client.CloseIdleConnections()
	_ = g.log.Close()
	for drained := false; !drained; { // the reader may be in the middle of a storm
		select {
		case <-g.lines:
		default:
			drained = true
		}
	}
	g.done.Wait()
}

// await is the next line with the words.
func (g *gitgate) await(ctx context.Context, words string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	for {
		select {
		case line := <-g.lines:
			if strings.Contains(line, words) {
				return line, nil
			}
			if strings.Contains(line, "level=ERROR") {
				return "", fmt.Errorf("it failed: %s", line)
			}
		case <-ctx.Done():
			return "", fmt.Errorf("%q is not in its log: %w", words, ctx.Err())
		}
	}
}

// hook sends a webhook.
func (g *gitgate) hook(ctx context.Context, r *remote, delivery int) error {
	body := fmt.Sprintf(`{"ref":"refs/heads/master","before":"%040d","after":%q,"repository":{"clone_url":%q}}`, 0, r.commits[r.at], "file://"+r.bare)
	mac := hmac.New(sha256.New, []byte(updateSecret))
	mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.address+"/hook", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-GitHub-Delivery", fmt.Sprint(delivery))
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	resp, err := g.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("a webhook was answered with %s", resp.Status)
	}
	return nil
}

// update takes the time from a webhook to the line that tells the end.
func (g *gitgate) update(ctx context.Context, r *remote, words string) (time.Duration, error) {
	g.sent++
	start := time.Now()
	if err := g.hook(ctx, r, g.sent); err != nil {
		return 0, err
	}
	line, err := g.await(ctx, words)
	took := time.Since(start)
	if err == nil && !strings.Contains(line, "commit="+r.commits[r.at]) {
		err = errShort
	}
	return took, err
}

// storm sends many at once, and waits until nothing is to be done any more.
func (g *gitgate) storm(ctx context.Context, r *remote, sheet *table.Sheet) error {
	before, err := proc.Settled(ctx, func() (int64, error) { return proc.Pss(g.process.Pid()) })
	if err != nil {
		return err
	}
	first := g.sent + 1
	g.sent += storm
	errs := make(chan error, senders)
	start := time.Now()
	for sender := range senders {
		go func() {
			var failed error
			for i := range storm / senders {
				if err := g.hook(ctx, r, first+sender*storm/senders+i); err != nil {
					failed = err
				}
			}
			errs <- failed
		}()
	}
	for range senders {
		if failed := <-errs; failed != nil {
			err = failed
		}
	}
	if err != nil {
		return err
	}
	took := time.Since(start)
	// What is still to come would begin within the pace.
	if err := lapse(ctx, 2*pace); err != nil {
		return err
	}
	updates := 0
	for waiting := true; waiting; {
		select {
		case line := <-g.lines:
			if strings.Contains(line, "because=webhook") {
				updates++
			}
		default:
			waiting = false
		}
	}
	after, err := proc.Settled(ctx, func() (int64, error) { return proc.Pss(g.process.Pid()) })
	if err != nil {
		return err
	}
	sheet.Add(rowGitgate, colAnswered, took.Seconds()*1e3)
	sheet.Add(rowGitgate, colFetches, float64(updates))
	sheet.Add(rowGitgate, colBefore, float64(before)/mib)
	sheet.Add(rowGitgate, colAfter, float64(after)/mib)
	return nil
}
