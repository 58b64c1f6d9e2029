package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// The clients of this file are not made of OpenSSH.

func tryCurl(t *testing.T, z *zoo) {
	file, sum := randomFile(t, 2<<20)
	far, back := t.TempDir(), filepath.Join(t.TempDir(), "back")
	for _, scheme := range []string{"sftp", "scp"} {
		url := scheme + "://abc@127.0.0.1:" + z.port + filepath.Join(far, scheme)
		curl := []string{"-q", "-sS", "--insecure", "--key", z.id.file, "--pubkey", z.id.file + ".pub", "-u", "abc:"}
		runCommand(t, nil, "curl", append(curl, "-T", file, url)...).must(t)
		runCommand(t, nil, "curl", append(curl, "-o", back, url)...).must(t)
		if fileSum(t, filepath.Join(far, scheme)) != sum || fileSum(t, back) != sum {
			t.Errorf("%s: the file has changed on its way", scheme)
		}
		if scheme == "sftp" {
			contains(t, runCommand(t, nil, "curl", append(curl, "-Q", "mkdir "+far+"/folder", filepath.Dir(url)+"/")...).must(t).stdout, "sftp", "folder")
		}
	}
}

// putty returns what the programs of PuTTY need: a key of its own format, and
// the host key.
func putty(t *testing.T, z *zoo) []string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key.ppk")
	runCommand(t, nil, "puttygen", z.id.file, "-O", "private", "-o", key).must(t)
	host := regexp.MustCompile(`host key: (SHA256:\S+)`).FindStringSubmatch(z.out.String())[1]
	return []string{"-batch", "-i", key, "-hostkey", host}
}

func tryPlink(t *testing.T, z *zoo) {
	plink := append(putty(t, z), "-ssh", "-proxycmd", tool("wsproxy")+" "+z.url)
	const host = "abc@job" // what is called localhost, PuTTY connects to without a proxy
	r := runCommand(t, strings.NewReader("in\n"), "plink", append(plink, host, "cat; echo err >&2; exit 7")...)
	if r.stdout != "in\n" || r.stderr != "err\n" || r.code != 7 {
		t.Errorf("got %+v", r)
	}
	r = runCommand(t, strings.NewReader("exit 5\n"), "plink", append(plink, "-t", host)...)
	if r.code != 5 {
		t.Errorf("a shell on a terminal: %+v", r)
	}
	// -nc is OpenSSH's -W.
	listener := startEcho(t)
	r = runCommand(t, strings.NewReader("over\n"), "plink", append(plink, "-nc", listener, host)...)
	if r.stdout != "over\n" {
		t.Errorf("a forward: %+v", r)
	}
}

func tryPsftp(t *testing.T, z *zoo) {
	file, sum := randomFile(t, 2<<20)
	far, back := t.TempDir(), filepath.Join(t.TempDir(), "back")
	options := append(putty(t, z), "-P", z.port)
	batch := z.write(t, "psftp", fmt.Sprintf("cd %s\nput %s file\nmkdir folder\nmv file folder/moved\nchmod 600 folder/moved\nls folder\nget folder/moved %s\nquit\n", far, file, back))
	contains(t, runCommand(t, nil, "psftp", append(options, "-b", batch, "abc@127.0.0.1")...).must(t).stdout, "-rw-------", "moved")
	if fileSum(t, filepath.Join(far, "folder", "moved")) != sum || fileSum(t, back) != sum {
		t.Error("the file has changed on its way")
	}
	for _, protocol := range []string{"-scp", "-sftp"} {
		runCommand(t, nil, "pscp", append(append(options, protocol, "-q"), file, "abc@127.0.0.1:"+far+"/pscp")...).must(t)
		if fileSum(t, filepath.Join(far, "pscp")) != sum {
			t.Errorf("pscp %s: the file has changed on its way", protocol)
		}
	}
}

func tryDbclient(t *testing.T, z *zoo) {
	key := filepath.Join(t.TempDir(), "key")
	runCommand(t, nil, "dropbearconvert", "openssh", "dropbear", z.id.file, key).must(t)
	home := "HOME=" + t.TempDir()
	dbclient := []string{home, "dbclient", "-y", "-y", "-i", key}
	proxied := append(dbclient, "-J", tool("wsproxy")+" "+z.url, "abc@localhost")
	r := runCommand(t, strings.NewReader("in\n"), "env", append(proxied, "cat; echo err >&2; exit 7")...)
	if r.stdout != "in\n" || r.code != 7 {
		t.Errorf("got %+v", r)
	}
	contains(t, r.stderr, "err\n")
	direct := append(dbclient, "-p", z.port)
	s := newScreen(t, "200", "50")
	s.typeLine("env " + strings.Join(direct, " ") + " abc@127.0.0.1; echo ended with $?.")
	s.waitFor(`To (extend|keep)`)
	s.typeLine("stty size; exit 5")
	s.waitFor(`ended with 5\.`)
	s.waitFor(`(?m)^50 200$`)
	// -B is OpenSSH's -W.
	r = runCommand(t, strings.NewReader("over\n"), "env", append(direct, "-B", startEcho(t), "abc@127.0.0.1")...)
	contains(t, r.stdout, "over\n")
}

// python runs a script of testdata with what it takes to log in.
func python(t *testing.T, z *zoo, script string) {
	t.Helper()
	dir := t.TempDir()
	r := runCommand(t, nil, "/usr/bin/python3", filepath.Join("testdata", script),
		z.port, z.id.file, dir, startEcho(t), tool("wsproxy")+" "+z.url)
	if r.code != 0 || !strings.HasSuffix(r.stdout, "all is well\n") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "moved")); err != nil {
		t.Error(err)
	}
}

func tryParamiko(t *testing.T, z *zoo) { python(t, z, "paramikoclient.py") }

func tryLibssh(t *testing.T, z *zoo) { python(t, z, "libsshclient.py") }

// startEcho starts a server that sends back what it gets until its end, and
// returns its address.
func startEcho(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		all.Wait()
	})
	return listener.Addr().String()
}
