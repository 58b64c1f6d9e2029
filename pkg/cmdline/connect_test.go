package cmdline

import (
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

const secret = "hunter2"

func TestConnectOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "headers")
	text := "# a comment\n\nX-Token: " + secret + "\r\n  Cookie: a=b, c=d\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := try(t, "--header", "authorization: Bearer a:b, c", "--ca", "ca.pem", "--header", "@"+file, "--insecure", "--header", "X-Token:more")
	got, err := ConnectOptions(r.in)
	if err != nil {
		t.Fatal(err)
	}
	want := http.Header{"Authorization": {"Bearer a:b, c"}, "X-Token": {secret, "more"}, "Cookie": {"a=b, c=d"}}
	if !reflect.DeepEqual(got.Header, want) || got.CAFile != "ca.pem" || !got.Insecure {
		t.Errorf("got %+v", got)
	}
	if got, err := ConnectOptions(try(t).in); err != nil || got.CAFile != "" || got.Insecure || len(got.Header) != 0 {
		t.Errorf("the zero options are %+v, %v", got, err)
	}
}

func TestBadHeaders(t *testing.T) {
	for header, want := range map[string]string{
		secret:                              "the header in --header option 1 has no colon: write 'NAME: VALUE'",
		"":                                  "the header in --header option 1 has no colon: write 'NAME: VALUE'",
		": " + secret:                       "the header in --header option 1 has no valid name before its colon: write 'NAME: VALUE'",
		"Bearer " + secret + ": x":          "the header in --header option 1 has no valid name before its colon: write 'NAME: VALUE'",
		"X-A: " + secret + "\r\nX-B: x":     "the value of the header X-A has a line break or another control character in it",
		"X-A: " + secret + "\x00":           "the value of the header X-A has a line break or another control character in it",
		"Host: " + secret:                   "the header Host cannot be set: it belongs to the connection itself",
		"upgrade: " + secret:                "the header upgrade cannot be set: it belongs to the connection itself",
		"connection: " + secret:             "the header connection cannot be set: it belongs to the connection itself",
		"TE: " + secret:                     "the header TE cannot be set: it belongs to the connection itself",
		"sec-websocket-protocol: " + secret: "the header sec-websocket-protocol cannot be set: it belongs to the connection itself",
		"Sec-WebSocket-Key: " + secret:      "the header Sec-WebSocket-Key cannot be set: it belongs to the connection itself",
	} {
		_, err := ConnectOptions(try(t, "--header="+header).in)
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v", header, err)
			continue
		}
		if _, ok := err.(*usageError); !ok {
			t.Errorf("%q: not a usage error: %T", header, err)
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the value is shown", header)
		}
	}
}

func TestHeaderFiles(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := write("bad", "X-A: b\n\n"+secret+"\n")
	_, err := ConnectOptions(try(t, "--header", "@"+bad).in)
	if err == nil || err.Error() != "the header in line 3 of "+bad+" has no colon: write 'NAME: VALUE'" {
		t.Errorf("bad line: %v", err)
	}
	large := write("large", "X-A: "+strings.Repeat("a", MaxHeaderFile))
	_, err = ConnectOptions(try(t, "--header", "@"+large).in)
	if err == nil || err.Error() != "the header file "+large+" is larger than 64 KiB" {
		t.Errorf("large file: %v", err)
	}
	full := write("full", "X-A: "+strings.Repeat("a", MaxHeaderFile-5))
	if _, err = ConnectOptions(try(t, "--header", "@"+full).in); err != nil {
		t.Errorf("a file of just the limit: %v", err)
	}
	_, err = ConnectOptions(try(t, "--header", "@"+filepath.Join(folder, "none")).in)
	if _, usage := err.(*usageError); err == nil || usage || !strings.HasPrefix(err.Error(), "cannot read the header file: ") {
		t.Errorf("missing file: %v", err)
	}
	if _, err = ConnectOptions(try(t, "--header", "@"+folder).in); err == nil {
		t.Error("a folder was read as a file")
	}
}

func FuzzHeader(f *testing.F) {
	f.Add("Authorization: Bearer x")
	f.Fuzz(func(t *testing.T, text string) {
		header := http.Header{}
		if err := addHeader(header, "here", text); err != nil {
			if len(header) != 0 {
				t.Error("refused, yet added")
			}
			return
		}
		for name, values := range header {
			if !httpguts.ValidHeaderFieldName(name) || refusedHeaders[name] || strings.HasPrefix(name, refusedPrefix) ||
				len(values) != 1 || !httpguts.ValidHeaderFieldValue(values[0]) {
				t.Errorf("accepted %q: %q", name, values)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("url\n--id\na\n--\nx")
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, "\n")
		line, err := parse(newOptions(sample(nil)), args)
		if err != nil {
			return
		}
		for _, arg := range line.args {
			if arg == "--" || len(arg) > 1 && arg[0] == '-' {
				t.Errorf("the option %q became an argument", arg)
			}
		}
		if n := len(line.args) + len(line.values) + len(line.tail); n > len(args) {
			t.Errorf("%d pieces of %d arguments", n, len(args))
		}
	})
}
