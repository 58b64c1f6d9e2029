package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// TestX11 runs in a network of its own, since the port is given, with the real xauth.
func TestX11(t *testing.T) {
	options, enter := []string{"--net"}, []string{"--net"}
	if os.Geteuid() != 0 {
		options, enter = append(options, "--user", "--map-root-user"), append(enter, "--user", "--preserve-credentials")
	}
	const cookie = "0123456789abcdef0123456789abcdef"
	request := setup{ConnectionType: x11, Protocol: "tcp", Screen: "0", AuthProtocol: "MIT-MAGIC-COOKIE-1", AuthCookie: cookie}
	for name, inFolder := range map[string]bool{"by XAUTHORITY": false, "in the working folder": true} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			file := filepath.Join(folder, "authority")
			cmd := limited(t, "unshare", append(options, "/bin/sh", "-c", `ip link set lo up && exec "$0" forward-server`, program)...)
			cmd.Dir, cmd.Env = folder, append(os.Environ(), "XAUTHORITY="+file)
			if inFolder {
				file = filepath.Join(folder, ".Xauthority")
				cmd.Env = append(cmd.Env, "XAUTHORITY=")
			}
			f := startForward(t, cmd)
			f.send(packet{Type: tSetup, Payload: marshal(t, request)})
			f.want(tSuccess, 0)
			list, err := exec.CommandContext(t.Context(), "xauth", "-f", file, "list").Output()
			if err != nil || !strings.Contains(string(list), ":10.0  MIT-MAGIC-COOKIE-1  "+cookie) && !strings.Contains(string(list), ":10  MIT-MAGIC-COOKIE-1  "+cookie) {
				t.Errorf("xauth has %q, %v", list, err)
			}
			if m := mode(t, file); m != 0o600 {
				t.Errorf("its file is %v", m)
			}
			// A client of X11, in that network.
			client := limited(t, "nsenter", append(append([]string{"--target", itoa(cmd.Process.Pid)}, enter...), "socat", "-", "TCP:127.0.0.1:6010")...)
			stdin, err := client.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			var what connection
			if err := cbor.Unmarshal(f.want(tNew, 1).Payload, &what); err != nil || what.ConnectedAddress != "127.0.0.1" || what.ConnectedPort != 6010 {
				t.Errorf("it tells %+v, %v", what, err)
			}
			f.send(packet{Type: tSuccess, ConnectionId: 1})
			_, _ = stdin.Write([]byte("l\x00"))
			if got := f.read(1, 2); got != "l\x00" {
				t.Errorf("the client sent %q", got)
			}
			_ = stdin.Close()
			f.want(tClose, 1)
			f.send(packet{Type: tSuccess, ConnectionId: 1})
			_ = client.Wait()
			f.eof()
		})
	}
	for said, change := range map[string]func(*setup, *exec.Cmd){
		"install it there": func(_ *setup, cmd *exec.Cmd) { cmd.Env = []string{"PATH=" + t.TempDir()} },
		"not hexadecimal":  func(s *setup, _ *exec.Cmd) { s.AuthCookie = "00\nremove :0" },
		"not a number":     func(s *setup, _ *exec.Cmd) { s.Screen = "0 x" },
		"cannot add the X11 cookie": func(_ *setup, cmd *exec.Cmd) {
			cmd.Env = append(os.Environ(), "XAUTHORITY=/nowhere/authority")
		},
	} {
		cmd, wrong := command(t, "forward-server"), request
		change(&wrong, cmd)
		f := startForward(t, cmd)
		f.send(packet{Type: tSetup, Payload: marshal(t, wrong)})
		f.want(tError, 0)
		f.ends(1, said)
	}
}
