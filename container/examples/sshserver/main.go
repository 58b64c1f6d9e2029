// Command sshserver gives each SSH connection a container of its own:
//
//	go run ./examples/sshserver 127.0.0.1:2222 debian:12 ~/.ssh/id_ed25519.pub
package main

import (
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/gliderlabs/ssh"

	"example.com/converge/container"
)

func main() {
	text, _ := os.ReadFile(os.Args[3])
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	l, listenErr := net.Listen("tcp", os.Args[1])
	if err != nil || listenErr != nil {
		log.Fatal(err, listenErr)
	}
	cfg := container.Config{Execution: container.ExecutionConfig{Image: os.Args[2], GuestFile: os.Getenv("GUEST")}}
	server := &ssh.Server{
		PublicKeyHandler: func(_ ssh.Context, k ssh.PublicKey) bool { return ssh.KeysEqual(k, key) },
		ConnCallback: func(ctx ssh.Context, conn net.Conn) net.Conn {
			client := *conn.RemoteAddr().(*net.TCPAddr)
			handler, err := container.New(client, client.String(), cfg, slog.Default(), nil, nil)
			if err != nil {
				log.Fatal(err)
			}
			ctx.SetValue("begin", sync.OnceValues(func() (*container.Connection, error) { return handler.OnHandshakeSuccess(ctx.User()) }))
			go func() { <-ctx.Done(); handler.OnDisconnect() }()
			return conn
		},
		Handler: func(s ssh.Session) { _ = s.Exit(int(serve(s))) },
	}
	fmt.Println("listening on", l.Addr())
	log.Fatal(server.Serve(l))
}

// serve runs what a session asks for and returns its exit status.
func serve(s ssh.Session) container.ExitStatus {
	ended := make(chan container.ExitStatus, 1)
	exit := func(status container.ExitStatus) { ended <- status }
	c, err := s.Context().Value("begin").(func() (*container.Connection, error))()
	if err == nil {
		var session *container.Session
		if session, err = c.OnSessionChannel(0, nil); err == nil {
			err = start(s, session, exit)
		}
	}
	if err != nil {
		fmt.Fprintln(s.Stderr(), container.UserMessage)
		return 1
	}
	return <-ended
}

func start(s ssh.Session, session *container.Session, exit func(container.ExitStatus)) error {
	for _, variable := range s.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		_ = session.OnEnvRequest(0, name, value)
	}
	if pty, _, ok := s.Pty(); ok {
		_ = session.OnPtyRequest(0, pty.Term, uint32(pty.Window.Width), uint32(pty.Window.Height), 0, 0, nil)
	}
	if line := s.RawCommand(); line != "" {
		return session.OnExecRequest(0, line, s, s, s.Stderr(), exit)
	}
	return session.OnShell(0, s, s, s.Stderr(), exit)
}
