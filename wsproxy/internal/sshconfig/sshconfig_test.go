package sshconfig

import (
	"strings"
	"testing"
)

// TestHosts: where there is a shell, a name with the quote that would end the
// quoting is none of the block's; where there is none, it has the other quote.
func TestHosts(t *testing.T) {
	for windows, want := range map[bool][2]string{
		false: {`Host *.converge "!*'*"`, `ProxyCommand wsproxy by-name '%n'`},
		true:  {`Host *.converge`, `ProxyCommand wsproxy by-name "%n"`},
	} {
		text := Block{Domain: "converge", Proxy: "wsproxy by-name", Windows: windows}.Text()
		for _, line := range want {
			if strings.Count(text, "\n"+line+"\n")+strings.Count(text, "\n    "+line+"\n") != 1 {
				t.Errorf("windows %v: no line %s in %s", windows, line, text)
			}
		}
	}
}
