package gitcmd

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"example.com/converge/pkg/shellword"
)

// maxKey is the largest file of a private key, in bytes.
const maxKey = 64 << 10

// basicAuth is the configuration by which git shows user and password to one
// host and to no other (RFC 7617). git goes by the URL that it was given: where it
// follows that one's redirect, it shows the same headers to whom it leads to. So
// redirects of that host are not followed.
func basicAuth(address, user, password string) [][2]string {
	u, err := url.Parse(address)
	if err != nil {
		return nil
	}
	u.Path, u.RawPath, u.User = "/", "", nil
	scope := "http." + u.String()
	return [][2]string{
		{scope + ".extraHeader", "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))},
		{scope + ".followRedirects", "false"},
	}
}

// ssh is the command that git is to use. No file of the user's or of the
// machine's configuration counts, no key but the given one, and no server whose
// key is not known.
func (g *Git) ssh(o Options) (string, error) {
	words := []string{
		"ssh", "-F", os.DevNull, "-oBatchMode=yes", "-oStrictHostKeyChecking=yes", "-oUpdateHostKeys=no", "-oCheckHostIP=no",
		"-oIdentitiesOnly=yes", "-oConnectTimeout=20", "-oServerAliveInterval=15", "-oServerAliveCountMax=4",
		"-oForwardAgent=no", "-oClearAllForwardings=yes", "-oPermitLocalCommand=no", "-oControlMaster=no", "-oControlPath=none", "-oKbdInteractiveAuthentication=no", "-oPasswordAuthentication=no",
	}
	if o.KnownHosts != "" {
		words = append(words, "-oUserKnownHostsFile="+escapeOption(o.KnownHosts), "-oGlobalKnownHostsFile="+os.DevNull)
	}
	switch {
	case o.SSHKey == "":
		words = append(words, "-oIdentityFile=none", "-oIdentityAgent=none")
	case o.PassPhrase == "":
		if err := CheckKey(o.SSHKey, ""); err != nil {
			return "", err
		}
		words = append(words, "-oIdentityAgent=none", "-i", o.SSHKey)
	default:
		socket, public, err := g.keep(o.SSHKey, o.PassPhrase)
		if err != nil {
			return "", err
		}
		// The public half tells which of the agent's keys may be used.
		words = append(words, "-oIdentityAgent="+escapeOption(socket), "-i", public)
	}
	for i, word := range words { // git has a shell take it apart
		words[i] = shellword.Quote(word)
	}
	return strings.Join(words, " "), nil
}

// escapeOption keeps ssh from expanding or splitting a path.
func escapeOption(path string) string {
	return `"` + strings.NewReplacer("%", "%%", `"`, `\"`).Replace(path) + `"`
}

// CheckKey tells what is wrong with a private key's file, or with its passphrase,
// which is "" for none.
func CheckKey(name, phrase string) error {
	_, err := openKey(name, phrase)
	return err
}

// openKey opens a key. Without a passphrase it may be nil: ssh knows more kinds.
func openKey(name, phrase string) (key any, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, keyError(name, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKey))
	_ = f.Close()
	if err != nil {
		return nil, keyError(name, err)
	}
	key, err = ssh.ParseRawPrivateKey(text) // the passphrase may be one too many
	var missing *ssh.PassphraseMissingError
	if errors.As(err, &missing) && phrase != "" {
		key, err = ssh.ParseRawPrivateKeyWithPassphrase(text, []byte(phrase))
	}
	block, _ := pem.Decode(text)
	switch {
	case errors.Is(err, x509.IncorrectPasswordError):
		return nil, Errorf(Key, "the passphrase sshPassPhrase does not open the private key %s", name)
	case errors.As(err, &missing):
		return nil, Errorf(Key, "the private key %s of sshPrivKey is encrypted: give its passphrase as sshPassPhrase or sshPassPhraseFile", name)
	case err != nil && phrase == "" && block != nil:
		return nil, nil
	case err != nil && isPublic(text):
		return nil, Errorf(Key, "the file %s of sshPrivKey is a public key: give the private one", name)
	case err != nil:
		return nil, keyError(name, err)
	}
	return key, nil
}

func isPublic(text []byte) bool {
	_, _, _, _, err := ssh.ParseAuthorizedKey(text)
	return err == nil
}

func keyError(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Errorf(Key, "there is no file %s: look at sshPrivKey", name)
	case errors.Is(err, fs.ErrPermission):
		return Errorf(Key, "the file %s of sshPrivKey cannot be read: let the user of this program read it", name)
	}
	return Errorf(Key, "cannot use the private key %s of sshPrivKey: %w", name, err)
}

// keep opens a key and keeps it in an agent of its own, which lives as long as g:
// neither the key nor the passphrase is written anywhere, or is in an
// environment.
func (g *Git) keep(name, phrase string) (socket, public string, err error) {
	key, err := openKey(name, phrase)
	if err != nil {
		return "", "", err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return "", "", keyError(name, err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		return "", "", keyError(name, err)
	}
	folder, err := os.MkdirTemp("", "gitgate-")
	if err != nil {
		return "", "", Errorf(Other, "cannot make a folder for an ssh agent: %w", err)
	}
	g.close = append(g.close, func() { _ = os.RemoveAll(folder) })
	public = filepath.Join(folder, "key.pub")
	if err := os.WriteFile(public, ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o600); err != nil {
		return "", "", Errorf(Other, "cannot write for an ssh agent: %w", err)
	}
	socket = filepath.Join(folder, "agent")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return "", "", Errorf(Other, "cannot listen for an ssh agent: %w", err)
	}
	g.close = append(g.close, serveAgent(listener, ring))
	return socket, public, nil
}

// serveAgent answers until what it returns is called, which waits.
func serveAgent(listener net.Listener, ring agent.Agent) func() {
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		conns = map[net.Conn]bool{}
		ended bool
	)
	wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if ended {
				_ = conn.Close()
			}
			conns[conn] = true
			mu.Unlock()
			wait.Go(func() {
				_ = agent.ServeAgent(ring, conn)
				_ = conn.Close()
				mu.Lock()
				delete(conns, conn)
				mu.Unlock()
			})
		}
	})
	return func() {
		_ = listener.Close()
		mu.Lock()
		ended = true
		for conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		wait.Wait()
	}
}
