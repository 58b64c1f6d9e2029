package shellword

import "testing"

func TestWords(t *testing.T) {
	for in, want := range map[string]struct{ paste, quote, proxy string }{
		"":                 {`""`, `""`, `''`},
		"plain/1.2_x-y:z":  {"plain/1.2_x-y:z", `"plain/1.2_x-y:z"`, "plain/1.2_x-y:z"},
		"=zsh":             {`"=zsh"`, `"=zsh"`, `'=zsh'`},
		"two words":        {`"two words"`, `"two words"`, `'two words'`},
		"wss://h/c/id#PIN": {`"wss://h/c/id#PIN"`, `"wss://h/c/id#PIN"`, `'wss://h/c/id#PIN'`},
		"$x`y`":            {"\"\\$x\\`y\\`\"", "\"\\$x\\`y\\`\"", "'$x`y`'"},
		"it's":             {`"it's"`, `"it's"`, `'it'\''s'`},
		`a\b`:              {`"a\\b"`, `"a\\b"`, `"a\\b"`},
		"wow!":             {`'wow!'`, `'wow!'`, `'wow!'`},
		"~/home":           {`"~/home"`, `"~/home"`, `'~/home'`},
	} {
		if got := Paste(in); got != want.paste {
			t.Errorf("Paste(%q) is %s, want %s", in, got, want.paste)
		}
		if got := Quote(in); got != want.quote {
			t.Errorf("Quote(%q) is %s, want %s", in, got, want.quote)
		}
		if got := Proxy(in); got != want.proxy {
			t.Errorf("Proxy(%q) is %s, want %s", in, got, want.proxy)
		}
	}
}

func TestPaths(t *testing.T) {
	for in, want := range map[string][2]string{
		"~/bin/wsproxy":    {"~/bin/wsproxy", "~/bin/wsproxy"},
		"~/my bin/wsproxy": {`~/"my bin/wsproxy"`, `~/'my bin/wsproxy'`},
		"~/":               {`"~/"`, `'~/'`},
		"./wsproxy":        {"./wsproxy", "./wsproxy"},
	} {
		if paste, proxy := PastePath(in), ProxyPath(in); paste != want[0] || proxy != want[1] {
			t.Errorf("%q: %s and %s, want %s and %s", in, paste, proxy, want[0], want[1])
		}
	}
	if got := Percent("50%h%%"); got != "50%%h%%%%" {
		t.Errorf("got %q", got)
	}
}
