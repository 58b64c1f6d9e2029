//go:build linux

package peers

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"example.com/converge/bench/internal/proc"
)

// files is the limit of open files that the proxies are given.
const files = 20000

// nginxConf is nginx as a websocket proxy, with docs/nginx.conf's directives
// and as many connections as are measured.
const nginxConf = `daemon off;
worker_processes 1;
worker_rlimit_nofile %[1]d;
error_log stderr warn;
pid %[2]s/nginx.pid;
events { worker_connections %[1]d; }
http {
    access_log off;
    client_body_temp_path %[2]s/nginx-1;
    proxy_temp_path %[2]s/nginx-2;
    fastcgi_temp_path %[2]s/nginx-3;
    uwsgi_temp_path %[2]s/nginx-4;
    scgi_temp_path %[2]s/nginx-5;
    server {
        listen %[3]s backlog=4096;
        location / {
            proxy_pass http://%[4]s/;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
            proxy_set_header Host $http_host;
            proxy_read_timeout 75s;
            proxy_send_timeout 75s;
            proxy_buffering off;
        }
    }
}
`

func startNginx(ctx context.Context, lab *Lab, server string) (*proc.Process, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	file := lab.path("nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxConf, files, lab.Dir, address, server), 0o600); err != nil {
		return nil, "", err
	}
	return listening(ctx, address, "nginx", "-e", "stderr", "-p", lab.Dir, "-c", file)
}

// haproxyConf is HAProxy as a websocket proxy.
const haproxyConf = `global
    maxconn %[1]d
    nbthread 1
defaults
    mode http
    timeout connect 10s
    timeout client 75s
    timeout server 75s
    timeout tunnel 75s
frontend front
    bind %[2]s backlog 4096
    default_backend back
backend back
    server converge %[3]s
`

func startHAProxy(ctx context.Context, lab *Lab, server string) (*proc.Process, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	file := lab.path("haproxy.cfg")
	// It needs two descriptors for each connection and a few more.
	if err := os.WriteFile(file, fmt.Appendf(nil, haproxyConf, files/2-200, address, server), 0o600); err != nil {
		return nil, "", err
	}
	return listening(ctx, address, "haproxy", "-db", "-f", file)
}

// listening starts a program that says nothing when it is ready, and waits
// until it accepts connections.
func listening(ctx context.Context, address string, args ...string) (*proc.Process, string, error) {
	p, err := proc.Start(args...)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return p, address, nil
		}
		if p.Ended() {
			err = fmt.Errorf("%s ended: %s", p.Name, strings.Join(strings.Fields(p.Output()), " "))
			p.Stop()
			return nil, "", err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			p.Stop()
			return nil, "", fmt.Errorf("%s does not listen on %s: %w", p.Name, address, err)
		}
	}
}

func startWebsockify(ctx context.Context, lab *Lab, line *Line, setup Setup) error {
	line.speaksWebsocket("")
	far, err := line.listener(ctx, lab, setup.End)
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	return line.relay(listening(ctx, address, "websockify", address, far))
}

// startReverse is what one does without any tool: the job forwards a port of a
// machine that both can reach, by ssh -R, and the engineer goes through that
// machine.
func startReverse(ctx context.Context, lab *Lab, line *Line, _ Setup) error {
	target, err := line.end(lab.StartSSHD(ctx))
	if err != nil {
		return err
	}
	if err := line.relay(lab.StartSSHD(ctx)); err != nil {
		return err
	}
	forwarded, err := freeAddress()
	if err != nil {
		return err
	}
	relay, err := line.far(ctx, line.Front)
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(relay)
	name, err := exec.LookPath("ssh")
	if err != nil {
		return err
	}
	args := append([]string{name}, lab.clientOptions()...)
	args = append(args, "-N", "-oExitOnForwardFailure=yes", "-oPort="+port, "-R", forwarded+":"+target, lab.user+"@127.0.0.1")
	if _, err := line.end(listening(ctx, forwarded, args...)); err != nil {
		return err
	}
	line.proxy = func(address string) string {
		_, port, _ := net.SplitHostPort(address)
		words := []string{"ssh"}
		for _, option := range lab.clientOptions() {
			words = append(words, quote(option))
		}
		return strings.Join(append(words, "-oPort="+port, "-W", forwarded, lab.user+"@127.0.0.1"), " ")
	}
	return nil
}
