package cmdline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestToken: a token by all its forms, and the warning that only a literal on
// the command line brings.
func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(secret+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args  []string
		env   string
		warns bool
	}{
		"literal":            {[]string{"--token", secret}, "", true},
		"file":               {[]string{"--token", "@" + file}, "", false},
		"variable":           {nil, secret, false},
		"variable of a file": {nil, "@" + file, false},
		"file over variable": {[]string{"--token=@" + file}, "other", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CONVERGE_SAMPLE_TOKEN", test.env)
			r := try(t, test.args...)
			var stderr strings.Builder
			r.in.Stderr = &stderr
			for range 2 { // the warning is said once
				got, err := ConnectOptions(r.in)
				if err != nil || got.Header.Get("Authorization") != "Bearer "+secret {
					t.Errorf("%v, %v", got.Header, err)
				}
			}
			said := stderr.String()
			if warned := strings.Count(said, "warning: the secret of --token is on the command line") == 1 &&
				strings.Contains(said, "CONVERGE_SAMPLE_TOKEN"); warned != test.warns || !test.warns && said != "" {
				t.Errorf("it said %q", said)
			}
			if strings.Contains(said, secret) {
				t.Errorf("the secret is shown: %q", said)
			}
		})
	}
}

// TestHeaderWarns of a secret among the arguments, by the header's name.
func TestHeaderWarns(t *testing.T) {
	for header, want := range map[string]bool{
		"Authorization: Basic " + secret: true, "cookie: " + secret: true, "X-Api-Key: " + secret: true,
		"User-Agent: me": false, "@/dev/null": false,
	} {
		r := try(t, "--header", header)
		var stderr strings.Builder
		r.in.Stderr = &stderr
		if _, err := ConnectOptions(r.in); err != nil {
			t.Errorf("%s: %v", header, err)
		}
		if said := stderr.String(); strings.Contains(said, "warning") != want || strings.Contains(said, secret) {
			t.Errorf("%s: it said %q", header, said)
		}
	}
}

func TestBadSecrets(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for value, want := range map[string]string{
		"@":                                "cannot read the secret of --token",
		"@" + filepath.Join(folder, "no"):  "cannot read the secret of --token",
		"@" + write("empty", " \n"):        "the secret of --token is empty",
		"@" + write("two", secret+"\nx\n"): "has a line break",
		secret + "\x1b[2J":                 "has a line break or another control character",
		"@" + write("large", strings.Repeat("a", MaxSecretFile+1)): "is larger than 64 KiB",
	} {
		r := try(t, "--token", value)
		r.in.Stderr = new(strings.Builder)
		if _, err := ConnectOptions(r.in); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%.40q: %v, want %q", value, err, want)
		}
	}
	r := try(t, "--token", secret, "--header", "authorization: x")
	r.in.Stderr = new(strings.Builder)
	if _, err := ConnectOptions(r.in); err == nil || !strings.Contains(err.Error(), "exclude each other") {
		t.Errorf("two credentials: %v", err)
	}
}

// TestSecrets: a list from the command line, a variable and files.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	list := write("list", "# who\r\n\n a"+secret+" \r\nb"+secret+"\n")
	open := func(s string) bool { return s == "open" }
	for name, test := range map[string]struct {
		args  []string
		env   string
		want  string
		err   string
		warns bool
	}{
		"nothing":   {},
		"open":      {args: []string{"--header", "open"}, want: "open"},
		"literals":  {args: []string{"--header", secret, "--header", "open"}, want: secret + " open", warns: true},
		"file":      {args: []string{"--header", "@" + list, "--header", "open"}, want: "a" + secret + " b" + secret + " open"},
		"variable":  {env: secret + "\n\n@" + list, want: secret + " a" + secret + " b" + secret},
		"no file":   {args: []string{"--header", "@" + filepath.Join(dir, "none")}, err: "cannot read the secrets of --header"},
		"too large": {args: []string{"--header", "@" + write("large", strings.Repeat("x", MaxSecretFile+1))}, err: "larger than 64 KiB"},
		"control":   {args: []string{"--header", "@" + write("control", "a\x01"+secret)}, err: "control character"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CONVERGE_SAMPLE_HEADER", test.env)
			r := try(t, test.args...)
			var stderr strings.Builder
			r.in.Stderr = &stderr
			got, err := Secrets(r.in, "header", open)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), secret) {
					t.Errorf("%v, want %q", err, test.err)
				}
				return
			}
			if err != nil || strings.Join(got, " ") != test.want {
				t.Errorf("%q, %v", got, err)
			}
			if warned := strings.Contains(stderr.String(), "warning: the secret of --header"); warned != test.warns || strings.Contains(stderr.String(), secret) {
				t.Errorf("it said %q", stderr.String())
			}
		})
	}
}
