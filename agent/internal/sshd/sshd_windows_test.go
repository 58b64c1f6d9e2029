package sshd

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for what takes milliseconds on an idle machine.
const patience = 60 * time.Second

// dialServer starts a server whose shell is cmd and logs in.
func dialServer(t *testing.T) *ssh.Client {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(Config{
		User: "abc", HostKey: host, Password: "correct horse", Shell: os.Getenv("ComSpec"),
		Env: append(os.Environ(), "agentdir=here"),
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accept sync.WaitGroup
	accept.Go(func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			accept.Go(func() { server.HandleConn(nc) })
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		listener.Close()
		if err := server.Shutdown(ctx, ""); err != nil {
			t.Error(err)
		}
		accept.Wait()
	})
	client, err := ssh.Dial("tcp", listener.Addr().String(), &ssh.ClientConfig{
		User: "abc", Auth: []ssh.AuthMethod{ssh.Password("correct horse")},
		HostKeyCallback: ssh.FixedHostKey(host.PublicKey()), Timeout: patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// openSession opens a session that a test cannot hang in.
func openSession(t *testing.T, client *ssh.Client) *ssh.Session {
	t.Helper()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { session.Close() })
	t.Cleanup(func() {
		timer.Stop()
		session.Close()
	})
	return session
}

// status is the exit status that an error of a session carries.
func status(t *testing.T, err error) int {
	t.Helper()
	var exit *ssh.ExitError
	if err == nil {
		return 0
	} else if !errors.As(err, &exit) {
		t.Fatalf("no exit status: %v", err)
	}
	return exit.ExitStatus()
}

func TestExec(t *testing.T) {
	session := openSession(t, dialServer(t))
	var out, errs strings.Builder
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader("typed\r\n"), &out, &errs
	err := session.Run(`set /p x= & echo on stderr>&2 & echo %agentdir% & exit 7`)
	if code := status(t, err); code != 7 {
		t.Errorf("exit status %d", code)
	}
	if strings.TrimSpace(out.String()) != "here" || strings.TrimSpace(errs.String()) != "on stderr" {
		t.Errorf("got %q, %q", out.String(), errs.String())
	}
}

// TestConsole types into a shell on a pseudo console and leaves it by "exit".
// The shell takes its streams from the console by name, as wine 8 does not give
// it to a process that starts without any.
func TestConsole(t *testing.T) {
	session := openSession(t, dialServer(t))
	if err := session.RequestPty("xterm", 40, 100, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("cmd <CON >CON 2>CON"); err != nil {
		t.Fatal(err)
	}
	if err := session.WindowChange(50, 120); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(in, "echo %TERM%-%agentdir%\rexit 3\r"); err != nil {
		t.Fatal(err)
	}
	// It ends although nobody closes the input.
	shown, err := io.ReadAll(out)
	if err != nil || !strings.Contains(string(shown), "xterm-here") {
		t.Errorf("the console showed %q, %v", shown, err)
	}
	if code := status(t, session.Wait()); code != 3 {
		t.Errorf("exit status %d", code)
	}
}

// TestInterrupt ends a command that would go on for an hour by ctrl-C.
func TestInterrupt(t *testing.T) {
	session := openSession(t, dialServer(t))
	if err := session.RequestPty("xterm", 40, 100, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("ping -n 3600 127.0.0.1 >CON"); err != nil {
		t.Fatal(err)
	}
	shown := bufio.NewReader(out)
	if _, err := shown.ReadString('='); err != nil { // of an answer
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "\x03"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, shown); err != nil {
		t.Error(err)
	}
	status(t, session.Wait()) // that there is one
}

// TestClientGoes ends a command whose client has gone: Shutdown waits for it.
func TestClientGoes(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		client := dialServer(t)
		session := openSession(t, client)
		if terminal {
			if err := session.RequestPty("xterm", 40, 100, ssh.TerminalModes{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := session.Start("ping -n 3600 127.0.0.1"); err != nil {
			t.Fatal(err)
		}
		client.Close()
	}
}
