package rendezvous

import (
	"strings"
	"testing"
)

func TestParseClientURL(t *testing.T) {
	for raw, want := range map[string]struct {
		server Server
		id     string
	}{
		"ws://h/client/a":                             {Server{false, "h", ""}, "a"},
		"wss://h:8443/client/team/repo/job":           {Server{true, "h:8443", ""}, "team/repo/job"},
		"WSS://h/client/a":                            {Server{true, "h", ""}, "a"},
		"ws://[::1]:80/client/a":                      {Server{false, "[::1]:80", ""}, "a"},
		"ws://h_1/x/y-z/client/a":                     {Server{false, "h_1", "/x/y-z"}, "a"},
		"ws://h/client/client/a":                      {Server{false, "h", ""}, "client/a"},
		"ws://h/client/agent/a":                       {Server{false, "h", ""}, "agent/a"},
		"ws://h/clients/client/a":                     {Server{false, "h", "/clients"}, "a"},
		"ws://h/client/" + strings.Repeat("a", MaxID): {Server{false, "h", ""}, strings.Repeat("a", MaxID)},
	} {
		server, id, err := ParseClientURL(raw)
		if err != nil || server != want.server || id != want.id {
			t.Errorf("ParseClientURL(%q) = %+v, %q, %v", raw, server, id, err)
		}
	}
	for raw, sentence := range map[string]string{
		"":                         "must be ws or wss",
		"h/client/a":               "must be ws or wss",
		"http://h/client/a":        "must be ws or wss",
		"ws:///client/a":           "no host",
		"ws://:80/client/a":        "no host",
		"ws:h/client/a":            "no host",
		"ws://u:secret@h/client/a": "--header @FILE",
		"ws://u@h/client/a":        "--header @FILE",
		"ws://h/client/a#pin":      "fragment",
		"ws://h/client/a?x=1":      "query",
		"ws://h/client/a?":         "query",
		"ws://h":                   "/client/ID",
		"ws://h/":                  "/client/ID",
		"ws://h/agent/a":           "/client/ID",
		"ws://h/client":            "/client/ID",
		"ws://h/client/":           "empty",
		"ws://h/client//a":         "start with a letter",
		"ws://h/client/../a":       "start with a letter",
		"ws://h/client/a%2Fb":      "only letters",
		"ws://h/client/%61":        "start with a letter",
		"ws://h/client/" + strings.Repeat("a", MaxID+1): "longer than 128",
		"ws://h/x/../client/a":                          `segment ".."`,
		"ws://h/./client/a":                             `segment "."`,
		"ws://h/x//y/client/a":                          "empty segment",
		"ws://h/%2e%2e/client/a":                        "only letters",
		"ws://h/x%41/client/a":                          "only letters",
		"ws://h/x;y/client/a":                           "only letters",
		"ws://h/$(x)/client/a":                          "only letters",
		"ws://h/agent/client/a":                         `segment "agent"`,
		"ws://h$(x)/client/a":                           "the URL",
		"ws://h`x`/client/a":                            "the URL",
		"ws://h%zz/client/a":                            "cannot be parsed",
		"ws://u:secret@h:port/client/a":                 "cannot be parsed",
		"ws://h/client/a\n":                             "cannot be parsed",
	} {
		_, _, err := ParseClientURL(raw)
		if err == nil || !strings.Contains(err.Error(), sentence) {
			t.Errorf("ParseClientURL(%q): %v, want %q", raw, err, sentence)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseClientURL(%q) repeats the password: %v", raw, err)
		}
	}
}

func TestParseAgentURL(t *testing.T) {
	for raw, want := range map[string]struct {
		server Server
		id     string
	}{
		"ws://h":                     {Server{false, "h", ""}, ""},
		"ws://h/":                    {Server{false, "h", ""}, ""},
		"ws://h/agent":               {Server{false, "h", ""}, ""},
		"ws://h/agent/":              {Server{false, "h", ""}, ""},
		"wss://h/x/":                 {Server{true, "h", "/x"}, ""},
		"ws://h/x/agent":             {Server{false, "h", "/x"}, ""},
		"ws://h/xagent":              {Server{false, "h", "/xagent"}, ""},
		"ws://h/agent/a":             {Server{false, "h", ""}, "a"},
		"ws://h/x/agent/a/b":         {Server{false, "h", "/x"}, "a/b"},
		"ws://h/agent/team/agent/a":  {Server{false, "h", ""}, "team/agent/a"},
		"ws://h/agent/team/client/a": {Server{false, "h", ""}, "team/client/a"},
	} {
		server, id, err := ParseAgentURL(raw)
		if err != nil || server != want.server || id != want.id {
			t.Errorf("ParseAgentURL(%q) = %+v, %q, %v", raw, server, id, err)
		}
	}
	for raw, sentence := range map[string]string{
		"https://h/agent/a":       "must be ws or wss",
		"ws://h/client/a":         "the URL is a client's: an agent registers at ws://",
		"wss://h/x/client/a":      "an agent registers at wss://",
		"ws://h/client/agent/a":   `segment "client"`,
		"ws://h/client":           `segment "client"`,
		"ws://h/agent/agent/":     "ends with a slash",
		"ws://h/agent/a/":         "ends with a slash",
		"ws://h/agent/../a":       "start with a letter",
		"ws://h/agent/a%20b":      "only letters",
		"ws://u:secret@h/agent/a": "--header @FILE",
		"ws://h/a b":              "only letters",
		"ws://h/..":               `segment ".."`,
		"ws://h/agent/a?token=t":  "query",
	} {
		_, _, err := ParseAgentURL(raw)
		if err == nil || !strings.Contains(err.Error(), sentence) {
			t.Errorf("ParseAgentURL(%q): %v, want %q", raw, err, sentence)
		}
	}
}

func TestServerURLs(t *testing.T) {
	plain := Server{Host: "h:80", Prefix: "/x"}
	secure := Server{Secure: true, Host: "h"}
	for got, want := range map[string]string{
		plain.String():         "ws://h:80/x",
		plain.AgentURL("a/b"):  "ws://h:80/x/agent/a/b",
		plain.ClientURL("a/b"): "ws://h:80/x/client/a/b",
		plain.DataURL():        "ws://h:80/x/data",
		secure.ClientURL("a"):  "wss://h/client/a",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// unsafe are characters that a shell, ssh's percent expansion or a proxy would
// take for something else.
const unsafe = " \t\r\n\"'`$&;|<>()*?#!\\{}%^"

func FuzzAgentURL(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw string) {
		s, id, err := ParseAgentURL(raw)
		if err != nil {
			return
		}
		again := s.String()
		if id != "" {
			if err := ValidID(id); err != nil {
				t.Fatalf("%q: %v", raw, err)
			}
			again = s.AgentURL(id)
		}
		if strings.ContainsAny(again, unsafe) {
			t.Errorf("%q became %q, which cannot be pasted", raw, again)
		}
		if s2, id2, err := ParseAgentURL(again); err != nil || s2 != s || id2 != id {
			t.Errorf("%q: %q parses as %+v, %q, %v", raw, again, s2, id2, err)
		}
		// The line that the agent prints must mean this agent.
		if s2, id2, err := ParseClientURL(s.ClientURL("job")); err != nil || s2 != s || id2 != "job" {
			t.Errorf("%q: the client's URL %q parses as %+v, %q, %v", raw, s.ClientURL("job"), s2, id2, err)
		}
	})
}

func FuzzClientURL(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw string) {
		s, id, err := ParseClientURL(raw)
		if err != nil {
			return
		}
		if err := ValidID(id); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		again := s.ClientURL(id)
		if strings.ContainsAny(again, unsafe) {
			t.Errorf("%q became %q, which cannot be pasted", raw, again)
		}
		if s2, id2, err := ParseClientURL(again); err != nil || s2 != s || id2 != id {
			t.Errorf("%q: %q parses as %+v, %q, %v", raw, again, s2, id2, err)
		}
	})
}
