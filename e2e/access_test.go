//go:build linux

package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/oidctest"
)

// writeLines makes a file that only its owner can read.
func writeLines(t *testing.T, lines ...string) (name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "file")
	rewrite(t, name, lines...)
	return name
}

// rewrite replaces a file in one step.
func rewrite(t *testing.T, name string, lines ...string) {
	t.Helper()
	fresh := name + ".new"
	if err := os.WriteFile(fresh, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, name); err != nil {
		t.Fatal(err)
	}
}

// makeToken has the server make a static token, and its line for --tokens.
func makeToken(t *testing.T, name, role string, ids ...string) (token, line string) {
	t.Helper()
	args := []string{"--make-token", name, "--role", role}
	for _, id := range ids {
		args = append(args, "--ids", id)
	}
	out := strings.Fields(strings.ReplaceAll(runCommand(t, nil, tool("server"), args...).must(t).stdout, "\n", " \n "))
	if len(out) < 4 {
		t.Fatalf("--make-token printed %q", out)
	}
	return out[0], strings.Join(out[1:], " ")
}

// oidcAudience is the server of the policies here.
const oidcAudience = "wss://converge.example.org"

// policyFor lets in the jobs of a repository on a kind of GitHub, and of the
// protected branches of a project on a kind of GitLab.
func policyFor(issuer *oidctest.Issuer) string {
	return `issuers:
  - issuer: ` + issuer.URL + `
    audience: ` + oidcAudience + `
    rules:
      - name: acme
        claims: {repository: acme/*, repository_owner_id: 7, event_name: [push, schedule, workflow_dispatch]}
        ids: ["{repository}/**"]
      - name: gitlab
        claims: {project_id: 1234, ref_protected: true}
        ids: [gitlab/**]`
}

func with(claims, extra oidctest.Claims) oidctest.Claims {
	maps.Copy(claims, extra)
	return claims
}

// githubClaims are those of a push to acme/widgets.
func githubClaims(extra oidctest.Claims) oidctest.Claims {
	return with(oidctest.Claims{
		"sub": "repo:acme/widgets:ref:refs/heads/main", "repository": "acme/widgets", "repository_id": "42",
		"repository_owner": "acme", "repository_owner_id": "7", "event_name": "push", "run_id": "99",
	}, extra)
}

// gitlabClaims are those of a push to a protected branch of project 1234.
func gitlabClaims(extra oidctest.Claims) oidctest.Claims {
	return with(oidctest.Claims{
		"sub": "project_path:acme/widgets:ref_type:branch:ref:main", "project_path": "acme/widgets", "project_id": "1234",
		"ref": "main", "ref_protected": "true", "pipeline_source": "push", "runner_id": 5,
	}, extra)
}

// TestOIDC: jobs show the tokens of their CI system, the policy says which may
// register as what, and nobody else is let in.
func TestOIDC(t *testing.T) {
	issuer := oidctest.New(t)
	s := startServer(t, "--policy", writeLines(t, policyFor(issuer)), "--anonymous", "client")
	id := newIdentity(t)
	token := issuer.Token(oidcAudience, githubClaims(nil))
	file := writeLines(t, token)
	a := printed(t, agentCommand(s.ws("/agent/acme/widgets/1"), id, "--keep", "--oidc-token", "@"+file)...)
	a.allowed(t)
	gitlab := printed(t, agentCommand(s.ws("/agent/gitlab/1"), id, "--keep", "--oidc-token", "@"+writeLines(t, issuer.Token(oidcAudience, gitlabClaims(nil))))...)
	gitlab.allowed(t)

	fork := oidctest.Claims{"ref": "refs/merge-requests/1/head", "ref_protected": "false", "pipeline_source": "merge_request_event"}
	for name, test := range map[string]struct{ id, token, want string }{
		"none":                      {"acme/widgets/2", "", "lets nobody in without a credential"},
		"the same with another key": {"acme/widgets/2", token, "has been used by another agent"},
		"another repository":        {"acme/widgets/2", issuer.Token(oidcAudience, githubClaims(oidctest.Claims{"repository": "evil/widgets", "repository_owner_id": "666"})), "no rule of the server's policy lets this OIDC token in"},
		"another repository's id":   {"acme/gadgets/2", issuer.Token(oidcAudience, githubClaims(nil)), "only for acme/widgets/**"},
		"pull request of a fork":    {"acme/widgets/2", issuer.Token(oidcAudience, githubClaims(oidctest.Claims{"event_name": "pull_request_target"})), "no rule of the server's policy"},
		"merge request of a fork":   {"gitlab/2", issuer.Token(oidcAudience, gitlabClaims(fork)), "no rule of the server's policy"},
		"for another server":        {"acme/widgets/2", issuer.Token("wss://else.example.org", githubClaims(nil)), "is for the audience wss://else.example.org"},
		"of an hour ago":            {"acme/widgets/2", issuer.Token(oidcAudience, githubClaims(expired())), "the OIDC token expired at "},
		"unsigned":                  {"acme/widgets/2", oidctest.Unsigned(t, issuer.Standard(oidcAudience, githubClaims(nil))), "the algorithm none, which is not accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"--password", "--id-conflict=fail", s.ws("/agent/" + test.id)}
			if test.token != "" {
				args = append([]string{"--oidc-token", "@" + writeLines(t, test.token)}, args...)
			}
			r := runCommand(t, nil, tool("agent"), args...)
			if r.code != 1 || !strings.Contains(r.stderr, test.want) || strings.Contains(r.stdout, "can be entered") {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %q in it", r.code, r.stdout, r.stderr, test.want)
			}
			if test.token != "" && strings.Contains(r.stdout+r.stderr, test.token) {
				t.Error("it printed the token")
			}
		})
	}
	if strings.Contains(s.out.String(), token) {
		t.Error("the server's log holds a token")
	}
}

func expired() oidctest.Claims {
	now := time.Now()
	return oidctest.Claims{"iat": now.Add(-2 * time.Hour).Unix(), "nbf": nil, "exp": now.Add(-time.Hour).Unix()}
}

// TestOIDCOutlivesToken: an agent whose token has ended comes back after a lost
// connection by its run key alone; after a restart of the server, which knows
// no keys any more, by a fresh token, from its file or from GitHub.
func TestOIDCOutlivesToken(t *testing.T) {
	issuer := oidctest.New(t)
	flags := []string{"--policy", writeLines(t, policyFor(issuer)), "--anonymous", "client"}
	s := startServer(t, flags...)
	g := openGate(t, s.addr)
	id := newIdentity(t)
	file := writeLines(t, issuer.Token(oidcAudience, gitlabClaims(nil)))
	stale := issuer.Token(oidcAudience, gitlabClaims(expired()))
	byFile := printed(t, agentCommand("ws://"+g.Address()+"/agent/gitlab/1", id, "--keep", "--oidc-token", "@"+file)...)

	var env []string
	for name, value := range issuer.GitHub(githubClaims(nil)) {
		env = append(env, name+"="+value)
	}
	command := agentCommand("ws://"+g.Address()+"/agent/acme/widgets/1", id, "--keep", "--oidc-audience", oidcAudience)
	byGitHub := linesOf(t, start(t, env, command[0], command[1:]...))
	byFile.allowed(t)
	byGitHub.allowed(t)

	rewrite(t, file, stale)
	g.CutAll(true)
	for _, name := range []string{"gitlab/1", "acme/widgets/1"} {
		s.out.Await(t, `msg="agent registered" id=`+name+` `, 2)
	}
	byFile.allowed(t)
	byGitHub.allowed(t)

	rewrite(t, file, issuer.Token(oidcAudience, gitlabClaims(nil)))
	asked := len(issuer.Asked())
	s.kill(t)
	again := s.restart(t, flags...)
	for _, name := range []string{"gitlab/1", "acme/widgets/1"} {
		again.out.Await(t, `msg="agent registered" id=`+name+` `, 1)
	}
	byFile.allowed(t)
	byGitHub.allowed(t)
	if got := issuer.Asked(); len(got) == asked {
		t.Error("the agent has not asked for a fresh token")
	}
	for _, p := range []pasted{byFile, byGitHub} {
		if n := strings.Count(p.out.String(), "Its id is"); n != 1 {
			t.Errorf("the lines were printed %d times", n)
		}
	}
}

// TestStaticTokens: made by the server, shown from files and variables by agent
// and client, and gone with their line, and whoever came by them, too.
func TestStaticTokens(t *testing.T) {
	ci, ciLine := makeToken(t, "ci", "agent", "acme/**")
	alice, aliceLine := makeToken(t, "alice", "client")
	kept, keptLine := makeToken(t, "kept", "agent,client")
	tokens := writeLines(t, ciLine, aliceLine, keptLine)
	s := startServer(t, "--tokens", tokens)
	id := newIdentity(t)
	byFile := func(token string) string { return "CONVERGE_WSPROXY_TOKEN=@" + writeLines(t, token) }

	a := printed(t, agentCommand(s.ws("/agent/acme/1"), id, "--keep", "--token", "@"+writeLines(t, ci))...)
	command := agentCommand(s.ws("/agent/other"), id, "--keep")
	stays := linesOf(t, start(t, []string{"CONVERGE_AGENT_TOKEN=" + kept}, command[0], command[1:]...))
	a.allowed(t, byFile(alice))
	a.allowed(t, "CONVERGE_WSPROXY_TOKEN="+kept)
	a.refused(t, "lets nobody in without a credential: give a token with --token @FILE")
	a.refused(t, "the token is none of this server's: it may have been revoked", byFile("cvg_guess"))
	a.refused(t, "the token is not for clients", byFile(ci))
	r := runCommand(t, nil, tool("agent"), "--password", "--token", "@"+writeLines(t, ci), s.ws("/agent/other/2"))
	if r.code != 1 || !strings.Contains(r.stderr, "only for acme/**") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}

	client := start(t, []string{byFile(alice)}, "/bin/sh", "-c", "exec "+a.stock+" 'echo in; cat'")
	client.out.Await(t, "in", 1)
	goesOn := start(t, []string{byFile(kept)}, "/bin/sh", "-c", "exec "+stays.stock+" 'echo in; cat'")
	goesOn.out.Await(t, "in", 1)

	rewrite(t, tokens, ciLine, "nonsense", keptLine)
	s.out.Await(t, `line 2`, 1) // and nothing is revoked
	a.allowed(t, byFile(alice))

	rewrite(t, tokens, keptLine)
	if code := client.wait(t); code != 255 {
		t.Errorf("the client's exit code is %d: %s", code, client.out)
	}
	a.out.Await(t, "let this credential in no more", 1)
	stays.allowed(t, byFile(kept))
	stays.refused(t, "it may have been revoked", byFile(alice))
	select {
	case <-goesOn.done:
		t.Errorf("a session whose token is there was ended: %s", goesOn.out)
	default:
	}
	for _, p := range []*process{s.process, a.process, stays.process, client, goesOn} {
		for _, secret := range []string{ci, alice, kept} {
			if strings.Contains(p.out.String(), secret) {
				t.Errorf("%s printed a token", p.cmd.Path)
			}
		}
	}
}
