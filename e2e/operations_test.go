package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite what the documents have from the server")

// observed starts a server that has every figure, and an agent and a client at
// it, and returns what its second listener says at /metrics.
func observed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	w := &reader{dir: dir}
	w.writeCertificate(t)
	config := filepath.Join(dir, "server.yaml")
	w.write(t, "server.yaml", fmt.Sprintf("tls-cert: %s/chain.pem\ntls-key: %s/key.pem\naudit-log: %s/audit.log\ndebug-listen: 127.0.0.1:0\n", dir, dir, dir))
	s := startServer(t, "--config", config)
	s.tls = true
	address := s.out.Await(t, `msg="serving figures" address=(\S+)`, 1)[1]
	id := newIdentity(t)
	waitingAgent(t, s, id, "--insecure")
	return get(t, "http://"+address+"/metrics")
}

// waitingAgent starts an agent that stays, and waits for the line of stock ssh.
func waitingAgent(t *testing.T, s *server, id identity, args ...string) *agent {
	t.Helper()
	command := agentCommand(s.ws("/agent/"+uniqueID()), id, append([]string{"--keep"}, args...)...)
	a := &agent{process: start(t, nil, command[0], command[1:]...)}
	a.id = a.out.Await(t, `Its id is (\S+)`, 1)[1]
	a.ssh = a.out.Await(t, `(?m)^  (ssh .*)$`, 1)[1]
	a.url = regexp.MustCompile(`wss?://\S+/client/[^"'\s]+`).FindString(a.ssh)
	return a
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

// metric is a line of the table in the document.
type metric struct{ name, kind, help string }

func (m metric) row() string { return fmt.Sprintf("| `%s` | %s | %s |\n", m.name, m.kind, m.help) }

var (
	metricHelp  = regexp.MustCompile(`(?m)^# HELP (converge_\w+) (.*)$`)
	metricType  = regexp.MustCompile(`(?m)^# TYPE (converge_\w+) (\w+)$`)
	metricLabel = regexp.MustCompile(`(\w+)="[^"]*"`)
)

// metrics are the server's own, in the order of their names.
func metrics(text string) []metric {
	kinds := map[string]string{}
	for _, m := range metricType.FindAllStringSubmatch(text, -1) {
		kinds[m[1]] = m[2]
	}
	var all []metric
	for _, m := range metricHelp.FindAllStringSubmatch(text, -1) {
		name := m[1]
		sample := regexp.MustCompile(`(?m)^` + name + `(?:_bucket)?\{(.*)\}`).FindStringSubmatch(text)
		var labels []string
		if sample != nil {
			for _, l := range metricLabel.FindAllStringSubmatch(sample[1], -1) {
				if l[1] != "le" {
					labels = append(labels, l[1])
				}
			}
		}
		shown := name
		if len(labels) > 0 {
			slices.Sort(labels)
			shown += "{" + strings.Join(labels, ", ") + "}"
		}
		all = append(all, metric{shown, kinds[name], m[2]})
	}
	return all
}

// TestMetrics has promtool look at the figures, and the document in step with
// them.
func TestMetrics(t *testing.T) {
	text := observed(t)
	if r := runCommand(t, strings.NewReader(text), "promtool", "check", "metrics"); r.code != 0 || r.stdout+r.stderr != "" {
		t.Errorf("promtool check metrics: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	var table strings.Builder
	table.WriteString("| figure | type | |\n|---|---|---|\n")
	all := metrics(text)
	if len(all) < 15 {
		t.Errorf("there are %d figures only:\n%s", len(all), text)
	}
	for _, m := range all {
		table.WriteString(m.row())
	}
	const page, begin, end = "../docs/operations.md", "<!-- metrics -->\n", "<!-- /metrics -->\n"
	document := readText(t, page)
	before, rest, ok := strings.Cut(document, begin)
	old, after, also := strings.Cut(rest, end)
	if !ok || !also {
		t.Fatalf("%s has no place for the figures", page)
	}
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if old != table.String() {
		t.Errorf("%s is not in step with the server: run go test ./e2e -run TestMetrics -update\nwant:\n%s", page, &table)
	}

	// What is drawn, and what alarms, is there.
	known := map[string]bool{"up": true}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)`).FindAllString(text, -1) {
		known[m] = true
	}
	used := regexp.MustCompile(`\b(?:converge|process|go)_\w+\b`)
	rules := regexp.MustCompile(`(?ms)^        expr: .*?^        (?:for|labels):`).FindAllString(readText(t, "../deploy/prometheus/converge.rules.yml"), -1)
	if len(rules) < 10 {
		t.Errorf("there are %d alerts", len(rules))
	}
	for _, expr := range append(rules, expressions(t)...) {
		for _, name := range used.FindAllString(expr, -1) {
			if !known[name] && name != "go_version" {
				t.Errorf("%s uses %s, which the server does not have", expr, name)
			}
		}
	}
}

// expressions are those of the dashboard.
func expressions(t *testing.T) []string {
	t.Helper()
	var dashboard struct {
		Title  string
		UID    string
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct{ List []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(readText(t, "../deploy/grafana/converge.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	var all []string
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		if p.Title == "" || ids[p.ID] || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("the panel %d, %q, is none", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	if dashboard.Title == "" || dashboard.UID == "" || len(dashboard.Templating.List) != 3 || len(all) < 15 {
		t.Errorf("the dashboard has %d expressions", len(all))
	}
	return all
}

// TestAlerts has promtool check the rules and run their tests, and the
// expressions of the dashboard as rules. Each alert has a test, and a line in
// the document.
func TestAlerts(t *testing.T) {
	const dir = "../deploy/prometheus/"
	runCommand(t, nil, "promtool", "check", "config", dir+"prometheus.yml").must(t)
	runCommand(t, nil, "promtool", "check", "rules", "--lint-fatal", dir+"converge.rules.yml").must(t)
	runCommand(t, nil, "promtool", "test", "rules", dir+"converge.rules.test.yml").must(t)

	document, tests := readText(t, "../docs/operations.md"), readText(t, dir+"converge.rules.test.yml")
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(readText(t, dir+"converge.rules.yml"), -1)
	for _, a := range alerts {
		if !strings.Contains(document, "| `"+a[1]+"` |") {
			t.Errorf("the document does not say what to do about %s", a[1])
		}
		if !regexp.MustCompile(`alertname: ` + a[1] + `\n +exp_alerts:`).MatchString(tests) {
			t.Errorf("no test has %s fire", a[1])
		}
	}
	if n := strings.Count(document, "| `Converge"); n != len(alerts) {
		t.Errorf("the document has %d alerts, the rules %d", n, len(alerts))
	}

	rules := "groups:\n  - name: dashboard\n    rules:\n"
	for i, expr := range expressions(t) {
		expr = strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*").Replace(expr)
		rules += fmt.Sprintf("      - {record: 'panel:%d', expr: '%s'}\n", i, expr)
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	runCommand(t, nil, "promtool", "check", "rules", file).must(t)
}

// TestConfigDocument: the example has every option there is, with its default,
// and is a file that the server takes.
func TestConfigDocument(t *testing.T) {
	const file = "../docs/server.yaml"
	want := runCommand(t, nil, tool("server"), "--print-config").must(t).stdout
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if readText(t, file) != want {
		t.Errorf("%s is not in step with the server: run go test ./e2e -run TestConfigDocument -update", file)
	}
	runCommand(t, nil, tool("server"), "check-config", file).must(t)
	// Each default is one that may be said, but for the files that close the
	// server: an empty name is refused, as it would leave it open.
	said := regexp.MustCompile(`(?m)^# ([a-z-]+): (.*)$`).FindAllStringSubmatch(want, -1)
	if len(said) < 20 {
		t.Fatalf("there are %d options", len(said))
	}
	var all strings.Builder
	for _, m := range said {
		if m[1] == "tokens" || m[1] == "policy" {
			continue
		}
		all.WriteString(m[0][2:] + "\n")
	}
	defaults := filepath.Join(t.TempDir(), "defaults.yaml")
	if err := os.WriteFile(defaults, []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	runCommand(t, nil, tool("server"), "check-config", defaults).must(t)
}

// TestOneSessionID: one id is in the logs of all three, also when the stream has
// gone on over a restart of the server.
func TestOneSessionID(t *testing.T) {
	key := filepath.Join(t.TempDir(), "state-key")
	runCommand(t, nil, tool("server"), "--make-state-key", key).must(t)
	s := startServer(t, "--log-format", "text", "--state-key", key)
	id := newIdentity(t)
	a := waitingAgent(t, s, id)

	// tcptows, whose log is its own.
	forward := start(t, nil, tool("tcptows"), "0", a.url)
	port := forward.out.Await(t, `listening on 127\.0\.0\.1:(\d+)`, 1)[1]
	in, typed := io.Pipe()
	t.Cleanup(func() { _ = typed.Close() })
	done := make(chan result, 1)
	go func() {
		done <- runCommand(t, in, "ssh", "-Fnone", "-i"+id.file, "-oIdentitiesOnly=yes", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null",
			"-oLogLevel=ERROR", "-p", port, "abc@127.0.0.1", "cat")
	}()
	session := forward.out.Await(t, `msg=connected .*session=(\S+)`, 1)[1]
	a.out.Await(t, `msg="a user logged in" .*session=`+session, 1)
	s.out.Await(t, `msg="client connected" .*session=`+session, 1)

	s.kill(t)
	again := s.restart(t, "--state-key", key)
	second := forward.out.Await(t, `msg="going on over a new connection" .*session=(\S+) first=`+session, 1)[1]
	if second == session {
		t.Error("two connections have one id")
	}
	again.out.Await(t, `msg="client connected" .*session=`+second+` .*first=`+session, 1)
	a.out.Await(t, `msg="a client's session goes on" session=`+second+` first=`+session, 1)
	_, _ = io.WriteString(typed, "still here\n")
	_ = typed.Close()
	if r := <-done; r.code != 0 || r.stdout != "still here\n" {
		t.Errorf("the session ended with %d, %q, %s", r.code, r.stdout, r.stderr)
	}
	a.out.Await(t, `msg="a user logged out" .*session=`+session, 1)

	// wsproxy, on whose standard error it is only when somebody asks.
	line := strings.Replace(a.ssh, tool("wsproxy"), tool("wsproxy")+" --log-level info", 1)
	r := shell(t, nil, line+" true").must(t)
	m := regexp.MustCompile(`msg=connected session=(\S+)`).FindStringSubmatch(r.stderr)
	if m == nil {
		t.Fatalf("wsproxy says nothing: %s", r.stderr)
	}
	again.out.Await(t, `msg="client ended" .*session=`+m[1], 1)
	a.out.Await(t, `msg="a user logged in" .*session=`+m[1], 1)
	if r := shell(t, nil, a.ssh+" true").must(t); strings.Contains(r.stderr, "session=") {
		t.Errorf("unasked it says %s", r.stderr)
	}
}
