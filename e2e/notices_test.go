//go:build unix

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// chatRoom is a receiver of notices.
type chatRoom struct {
	*httptest.Server
	got chan string
}

func newChatRoom(t *testing.T) *chatRoom {
	t.Helper()
	c := &chatRoom{got: make(chan string, 100)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.got <- string(body)
	}))
	t.Cleanup(c.Close)
	return c
}

// next waits for a notice.
func (c *chatRoom) next(t *testing.T) string {
	t.Helper()
	select {
	case text := <-c.got:
		return text
	case <-time.After(patience):
		t.Fatal("nobody was told")
		return ""
	}
}

// TestNotices types the lines of docs/notices.md, with a chat of this machine, and
// comes in by the line that the chat was told.
func TestNotices(t *testing.T) {
	s, id, chat := startServer(t), newIdentity(t), newChatRoom(t)
	var lines string
	for _, b := range blocks(t, "docs/notices.md") {
		if b.mark == "TestNotices" {
			lines = b.text
		}
	}
	const address = "slack+https://hooks.slack.example/services/T000/B000/secret"
	if !strings.Contains(lines, address) || !strings.Contains(lines, "wss://HOST/agent/ID") {
		t.Fatalf("the lines are\n%s", lines)
	}
	dir := t.TempDir()
	writeText(t, filepath.Join(dir, "keys.pub"), id.public+"\n")
	writeText(t, filepath.Join(dir, "bin", "make"), "#!/bin/sh\nexit 3\n")
	name := uniqueID()
	lines = strings.NewReplacer(address, "slack+"+chat.URL+"/services/T0SECRET/B0SECRET/XXSECRET",
		"wss://HOST/agent/ID", s.ws("/agent/"+name), "agent --", "exec "+tool("agent")+" --shell /bin/bash --wsproxy "+tool("wsproxy")+" --").Replace(lines)
	p := start(t, []string{"PATH=" + filepath.Join(dir, "bin") + ":/usr/bin:/bin"}, "/bin/sh", "-c", "cd '"+dir+"'\n"+lines)

	var slack struct {
		Text   string
		Blocks []struct{ Text struct{ Text string } }
	}
	if err := json.Unmarshal([]byte(chat.next(t)), &slack); err != nil || len(slack.Blocks) < 2 {
		t.Fatalf("%v, %v", err, slack)
	}
	line := strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(strings.Trim(slack.Blocks[1].Text.Text, "`"))
	line = strings.Replace(line, " ssh ", " ssh -i "+id.file+" -oIdentitiesOnly=yes -Fnone -oBatchMode=yes -tt ", 1)
	if r := shell(t, strings.NewReader("echo he''re\nexit\n"), line); !strings.Contains(r.stdout, "here") {
		t.Errorf("%s: %d %q %q", line, r.code, r.stdout, r.stderr)
	}
	if text := chat.next(t); !strings.Contains(text, "is in the job") {
		t.Errorf("%s", text)
	}
	if text := chat.next(t); !strings.Contains(text, "its last user logged out") {
		t.Errorf("%s", text)
	}
	if code := p.wait(t); code != 3 || strings.Contains(p.out.String(), "SECRET") {
		t.Errorf("exit code %d\n%s", code, p.out)
	}
}

// TestNoticesSilent: a chat that never answers does not hold the job up, nor does
// a shell of the job learn where it is.
func TestNoticesSilent(t *testing.T) {
	s, id := startServer(t), newIdentity(t)
	asked := make(chan struct{}, 100)
	chat := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(chat.Close)
	file := filepath.Join(t.TempDir(), "where")
	writeText(t, file, "# where\njson+"+chat.URL+"/SECRETSECRET\ndiscord+"+chat.URL+"/SECRETSECRET\n")
	p, _ := wrapped(t, s, id, "exit 7", "--print", "all", "--notify", "@"+file)
	a := awaitAgent(t, p)
	for range 2 {
		select {
		case <-asked:
		case <-time.After(patience):
			t.Fatal("nobody was told")
		}
	}
	if r := viaWsproxy(id, a.url).ssh(t, nil, "env"); r.code != 0 || strings.Contains(r.stdout, "NOTIFY") {
		t.Errorf("%d %s", r.code, r.stdout)
	}
	visit(t, id, a)
	if code := p.wait(t); code != 7 || strings.Contains(p.out.String(), "SECRET") {
		t.Errorf("exit code %d\n%s", code, p.out)
	}
}
