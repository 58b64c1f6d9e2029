package tools

import (
	"slices"
	"strings"
	"testing"
)

const url = "wss://relay.example/client/team/job#PIN"

var settings = Settings{
	Host: "team--job.converge", User: "abc", ProxyCommand: "/bin/wsproxy URL", KnownHosts: "/tmp/w/known_hosts",
	AliveInterval: 10, AliveCount: 36,
}

// pinnedOptions and usualOptions are those of settings.
var (
	pinnedOptions = []string{
		"-oProxyCommand=/bin/wsproxy URL", "-oHostKeyAlias=team--job.converge",
		"-oUserKnownHostsFile=/tmp/w/known_hosts", "-oGlobalKnownHostsFile=/tmp/w/known_hosts",
		"-oStrictHostKeyChecking=yes", "-oVerifyHostKeyDNS=no", "-oUpdateHostKeys=no",
	}
	usualOptions = []string{"-oServerAliveInterval=10", "-oServerAliveCountMax=36", "-oControlPath=none"}
)

// words splits at spaces; a PINNED and a USUAL among them are the options.
func words(s string) []string {
	var out []string
	for _, w := range strings.Fields(s) {
		switch w {
		case "PINNED":
			out = append(out, pinnedOptions...)
		case "USUAL":
			out = append(out, usualOptions...)
		case "URL":
			out = append(out, url)
		default:
			out = append(out, w)
		}
	}
	return out
}

// TestArgs: what the stock programs are called with. Nothing of what follows the
// URL of ssh is changed.
func TestArgs(t *testing.T) {
	for _, test := range []struct {
		tool     Tool
		in, want string
	}{
		{SSH, "URL", "PINNED USUAL abc@team--job.converge"},
		{SSH, "URL -t top -d 1", "PINNED USUAL abc@team--job.converge -t top -d 1"},
		{SSH, "-v -i key -L8080:localhost:80 URL -N", "PINNED -v -i key -L8080:localhost:80 USUAL abc@team--job.converge -N"},
		{SSH, "-- URL ls", "PINNED USUAL abc@team--job.converge ls"},
		{SSH, "-l bob URL", "PINNED -l bob USUAL team--job.converge"},
		{SSH, "URL -l bob", "PINNED USUAL team--job.converge -l bob"},
		{SSH, "URL -vlbob id", "PINNED USUAL team--job.converge -vlbob id"},
		{SSH, "URL -oUSER=bob", "PINNED USUAL team--job.converge -oUSER=bob"},
		{SSH, "-o user=bob URL", "PINNED -o user=bob USUAL team--job.converge"},
		// Options of the command, and values that look like options, are none.
		{SSH, "URL ls -l dir", "PINNED USUAL abc@team--job.converge ls -l dir"},
		{SSH, "URL -- -l dir", "PINNED USUAL abc@team--job.converge -- -l dir"},
		{SSH, "-E -lbob URL", "PINNED -E -lbob USUAL abc@team--job.converge"},
		{SSH, "-oUserKnownHostsFile=x URL", "PINNED -oUserKnownHostsFile=x USUAL abc@team--job.converge"},
		// The user's own patience and sharing come first.
		{SSH, "-oServerAliveInterval=5 URL -oServerAliveCountMax=1 -S sock",
			"PINNED -oServerAliveInterval=5 abc@team--job.converge -oServerAliveCountMax=1 -S sock"},
		{SSH, "-M URL", "PINNED -M -oServerAliveInterval=10 -oServerAliveCountMax=36 abc@team--job.converge"},

		{SFTP, "URL", "PINNED USUAL abc@team--job.converge"},
		{SFTP, "URL -b batch -l 1000", "PINNED -b batch -l 1000 USUAL abc@team--job.converge"},
		{SFTP, "-P 22 URL -oUser=bob local", "PINNED -P 22 -oUser=bob USUAL team--job.converge local"},

		{SCP, "URL job:report.xml .", "PINNED USUAL abc@team--job.converge:report.xml ."},
		{SCP, "-C URL -r -l 500 dir other job:", "PINNED -C -r -l 500 USUAL dir other abc@team--job.converge:"},
		{SCP, "URL bob@job:/etc/x job:y jobs:z ./job:w d@b@job:v", "PINNED USUAL bob@team--job.converge:/etc/x abc@team--job.converge:y jobs:z ./job:w d@b@team--job.converge:v"},
		{SCP, "URL -oUser=bob job:x .", "PINNED -oUser=bob USUAL team--job.converge:x ."},
	} {
		line, err := test.tool.Split(words(test.in))
		if err != nil {
			t.Errorf("%s %s: %v", test.tool.Name, test.in, err)
			continue
		}
		got, err := test.tool.Args(line, settings)
		if err != nil || line.URL != url || !slices.Equal(got, words(test.want)) {
			t.Errorf("%s %s\n got %q, %v\nwant %q", test.tool.Name, test.in, got, err, words(test.want))
		}
	}
}

func TestRsyncArgs(t *testing.T) {
	s := settings
	s.ProxyCommand = `'/my "bin"/wsproxy' URL`
	s.KnownHosts = `/tmp/a b/known_hosts`
	line, err := Rsync.Split(words("-n URL -av --exclude=*.o job:src/ dst bob@job:x"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Rsync.Args(line, s)
	if err != nil {
		t.Fatal(err)
	}
	const rsh = `ssh "-oProxyCommand='/my ""bin""/wsproxy' URL" "-oHostKeyAlias=team--job.converge" "-oUserKnownHostsFile=""/tmp/a b/known_hosts""" ` +
		`"-oGlobalKnownHostsFile=""/tmp/a b/known_hosts""" "-oStrictHostKeyChecking=yes" "-oVerifyHostKeyDNS=no" "-oUpdateHostKeys=no" ` +
		`"-oServerAliveInterval=10" "-oServerAliveCountMax=36" "-oControlPath=none"`
	want := append([]string{"-e", rsh}, words("-n -av --exclude=*.o abc@team--job.converge:src/ dst bob@team--job.converge:x")...)
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for _, in := range []string{"URL -e ssh job:x .", "URL -ave ssh job:x .", "URL --rsh ssh job:x .", "URL --rsh=ssh job:x .", "-essh URL job:x ."} {
		line, err := Rsync.Split(words(in))
		if err == nil {
			_, err = Rsync.Args(line, settings)
		}
		if err == nil || !strings.Contains(err.Error(), "-e is taken") {
			t.Errorf("%s: %v", in, err)
		}
	}
	for _, in := range []string{"URL -f-_e job:x .", "URL -T -e job:x .", "URL --exclude job:x ."} {
		line, err := Rsync.Split(words(in))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Rsync.Args(line, settings); err != nil && !strings.Contains(in, "-T") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		tool     Tool
		in, want string
	}{
		{SSH, "", "give one URL"},
		{SSH, "-v", "give one URL"},
		{SSH, "-l URL", "give one URL"},
		{SSH, "--", "give one URL"},
		{SSH, "host URL", `"host" is no URL`},
		{SCP, "job:x .", `"job:x" is no URL`},
		{SCP, "URL x y", "none of the paths is one of the job"},
		{Rsync, "URL -a x y", "none of the paths is one of the job"},
	} {
		line, err := test.tool.Split(words(test.in))
		if err == nil {
			_, err = test.tool.Args(line, settings)
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %v, want %q", test.tool.Name, test.in, err, test.want)
		}
	}
}

// TestCut finds wsproxy's own options before the URL, and no others.
func TestCut(t *testing.T) {
	value := func(name string) bool { return name == "ca" }
	for in, want := range map[string][2]string{
		"URL":                               {"", "URL"},
		"--ca file -v --insecure URL --x y": {"--ca file --insecure", "-v URL --x y"},
		"--ca=file -i --ca URL":             {"--ca=file", "-i --ca URL"},
		"-oX=1 --unknown URL":               {"--unknown", "-oX=1 URL"},
		"-- --ca URL":                       {"", "-- --ca URL"},
		"--ca":                              {"--ca", ""},
		"-i":                                {"", "-i"},
		"":                                  {"", ""},
		"--help":                            {"--help", ""},
		"-l --help URL":                     {"", "-l --help URL"},
	} {
		own, rest := SSH.Cut(words(in), value)
		if !slices.Equal(own, words(want[0])) || !slices.Equal(rest, words(want[1])) {
			t.Errorf("%s: %q and %q", in, own, rest)
		}
	}
}

func TestFile(t *testing.T) {
	for in, want := range map[string]string{
		"/tmp/x":                "/tmp/x",
		"/tmp/a b":              `"/tmp/a b"`,
		"/tmp/50%":              "/tmp/50%%",
		`/tmp/a"b\c`:            `"/tmp/a\"b\\c"`,
		"C:/Users/Some One/tmp": `"C:/Users/Some One/tmp"`,
	} {
		if got := File(in); got != want {
			t.Errorf("File(%q) is %s, want %s", in, got, want)
		}
	}
}

// FuzzSplit: however arguments look, the URL that is found is one of them, and
// nothing of the others is lost.
func FuzzSplit(f *testing.F) {
	f.Add("-l\x00bob\x00" + url + "\x00ls\x00-l")
	f.Add("--\x00" + url)
	f.Fuzz(func(t *testing.T, joined string) {
		args := strings.Split(joined, "\x00")
		for _, tool := range []Tool{SSH, SFTP, SCP, Rsync} {
			own, rest := tool.Cut(args, func(name string) bool { return name == "ca" })
			if len(own)+len(rest) != len(args) {
				t.Fatalf("%q became %q and %q", args, own, rest)
			}
			line, err := tool.Split(rest)
			if err != nil {
				continue
			}
			if n := len(line.Before) + 1 + len(line.After); n != len(rest) && n != len(rest)-1 {
				t.Fatalf("%q became %+v", rest, line)
			}
			if _, err := tool.Args(line, settings); err != nil {
				continue
			}
		}
	})
}
