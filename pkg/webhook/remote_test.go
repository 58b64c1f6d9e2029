package webhook_test

import (
	"strings"
	"testing"

	"example.com/converge/pkg/webhook"
)

func TestRemotes(t *testing.T) {
	for name, same := range map[string][]string{
		"github.com/octo/hello-world": {
			"git@github.com:Octo/Hello-World.git", "git@github.com:octo/hello-world", "ssh://git@github.com/octo/hello-world.git",
			"ssh://git@ssh.github.com:443/octo/hello-world.git", "https://github.com/octo/hello-world.git", "https://github.com/octo/hello-world/",
			"https://user:token@GitHub.com:443/octo/hello-world", "http://github.com/octo//hello-world", "git://github.com/octo/hello-world.git",
			"github.com:octo/hello-world.git", "git@[github.com:443]:octo/hello-world.git", "git@github.com:/octo/hello-world.git", "https://github.com./octo/hello-world",
		},
		"2001:db8::1/a/b":     {"ssh://git@[2001:db8::1]:22/a/b.git", "git@[2001:db8::1]:a/b", "https://[2001:db8::1]/a/b"},
		"srv/git/Project":     {"/srv/git/Project.git", "file:///srv/git/Project.git", "file:///srv/git/Project/", "/srv/git/Project/.git", "file://localhost/srv/git/Project"},
		"c:/git/project":      {`c:\git\project.git`, "c:/git/project"},
		"host/a/b/c/d":        {"git@host:a/b/c/d.git", "https://host/a/b/c/d"},
		"host/~me/project":    {"ssh://host/~me/project.git", "host:~me/project"},
		"host/a b":            {"https://host/a%20b"},
		"host/up":             {"https://host/a/../up", "host:../up"},
		"host/project":        {"host:project", "ssh://host/project"},
		"other.example/a/b":   {"a@other.example:a/b"},
		"1.2.3.4/a":           {"1.2.3.4:a"},
		"github.com/octo/hel": {"git@github.com:octo/hel"},
	} {
		for _, text := range same {
			r, err := webhook.ParseRemote(text)
			if err != nil || r.String() != name {
				t.Errorf("%s is %s, want %s (%v)", text, r, name, err)
			}
		}
	}
	for _, bad := range []string{
		"", "-x", "--upload-pack=touch", "ext::sh -c touch", "ext::x", "fd::17", "project", "a/b", "./a", "https://", "https:///a", "https://host", "https://host/",
		"ftp://host/a", "https://host/a?b", "https://host/a#b", "ssh://-oProxyCommand=x/a", "-oProxyCommand=x:a", "git@-x:a", "host:", ":a",
		"file://host/a", "file:///", "/", "a b:c", "https://host/a\nb", "git@[host:a", "https://host/" + strings.Repeat("a", 2048),
	} {
		if r, err := webhook.ParseRemote(bad); err == nil {
			t.Errorf("%q is %s", bad, r)
		}
	}
}

func TestRepositoryIs(t *testing.T) {
	r := webhook.Repository{URLs: []string{"nonsense", "https://host/a/b.git", "git@host:a/b.git"}}
	for text, want := range map[string]bool{"ssh://git@host:2222/a/b": true, "https://host/a/bc": false, "https://hos/a/b": false, "/a/b": false} {
		remote, err := webhook.ParseRemote(text)
		if err != nil || r.Is(remote) != want {
			t.Errorf("%s: %v (%v)", text, r.Is(remote), err)
		}
	}
}

func FuzzParseRemote(f *testing.F) {
	for _, s := range []string{"git@github.com:a/b.git", "https://u:p@h:1/a%20b", "ssh://git@[::1]:2/a", "/srv/a.git", "ext::x", `c:\a`, "[h:1]:a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := webhook.ParseRemote(text)
		if err != nil {
			return
		}
		if r.Path == "" || strings.HasPrefix(r.Path, "/") || strings.HasPrefix(r.Host, "-") || strings.HasPrefix(text, "-") || r.Host != strings.ToLower(r.Host) {
			t.Errorf("%q is %+v", text, r)
		}
	})
}
