package cmdline

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/net/http/httpguts"

	"example.com/converge/pkg/files"
	"example.com/converge/pkg/transport"
)

// MaxHeaderFile is the largest file that --header @FILE reads, in bytes.
const MaxHeaderFile = 64 << 10

// refusedHeaders belong to the connection or to the handshake (RFC 9110
// §7.6.1, RFC 6455 §4.1), so that a user's value would break it or, as with
// Host, be ignored without a word: the host comes from the URL.
var refusedHeaders = map[string]bool{
	"Connection": true, "Content-Length": true, "Expect": true, "Host": true,
	"Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true,
}

// refusedPrefix is the canonical form of Sec-WebSocket-.
const refusedPrefix = "Sec-Websocket-"

// ConnectFlags returns --ca, --insecure, --header and --token, which
// ConnectOptions reads.
func ConnectFlags(program string) []cli.Flag {
	const category = "Connection options"
	token := SecretFlag(program, "token", "`TOKEN` with which the server lets this program in")
	token.Category = category
	return []cli.Flag{
		&cli.StringFlag{
			Name: "ca", Category: category,
			Usage:   "trust the certificates in this PEM `FILE` instead of the system's",
			EnvVars: EnvVars(program, "ca"),
		},
		&cli.BoolFlag{
			Name: "insecure", Category: category,
			Usage:   "do not verify the server's certificate",
			EnvVars: EnvVars(program, "insecure"),
		},
		&cli.StringSliceFlag{
			Name: "header", Category: category,
			Usage: "send this `'NAME: VALUE'` with every handshake; " +
				"@FILE reads such lines from a file, which keeps secrets out of the process list",
			EnvVars: EnvVars(program, "header"),
		},
		token,
	}
}

// ConnectOptions reads the options of ConnectFlags. A malformed or refused
// header is a usage error that gives its name, or its place where it has none,
// but never its value; a file that cannot be read is a plain error. Refused
// are the headers of the connection and of the websocket handshake: see
// RFC 9110 §7.6.1; Host comes from the URL. --token becomes a bearer token (RFC
// 6750 §2.1), which excludes an Authorization header.
func ConnectOptions(in *Invocation) (transport.Options, error) {
	header := http.Header{}
	for i, value := range in.StringSlice("header") {
		place := fmt.Sprintf("--header option %d", i+1)
		file, isFile := strings.CutPrefix(value, "@")
		var err error
		if isFile {
			err = addHeaderFile(header, file)
		} else {
			err = addHeader(header, place, value)
			if name, _, _ := strings.Cut(value, ":"); err == nil && secretHeader(name) {
				in.warnLiteral("header")
			}
		}
		if err != nil {
			return transport.Options{}, err
		}
	}
	token, err := Secret(in, "token")
	switch {
	case err != nil:
		return transport.Options{}, err
	case token != "" && header.Get("Authorization") != "":
		return transport.Options{}, Usagef("--token and a header Authorization exclude each other: give one of them")
	case token != "":
		header.Set("Authorization", "Bearer "+token)
	}
	return transport.Options{
		CAFile:   in.String("ca"),
		Insecure: in.Bool("insecure"),
		Header:   header,
	}, nil
}

// addHeaderFile adds the "NAME: VALUE" lines of a file; blank lines and those
// that begin with # do not count.
func addHeaderFile(header http.Header, path string) error {
	text, err := files.Read(path, MaxHeaderFile)
	switch {
	case errors.Is(err, files.ErrTooLarge):
		return Usagef("the header file %s is larger than %d KiB", path, MaxHeaderFile>>10)
	case err != nil:
		return fmt.Errorf("cannot read the header file: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, MaxHeaderFile+1)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := addHeader(header, fmt.Sprintf("line %d of %s", number, path), line); err != nil {
			return err
		}
	}
	return lines.Err()
}

// addHeader adds one "NAME: VALUE". place stands for it in messages as long as
// it has no good name, for its text may be a secret in the wrong place.
func addHeader(header http.Header, place, text string) error {
	name, value, found := strings.Cut(text, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !found {
		return Usagef("the header in %s has no colon: write 'NAME: VALUE'", place)
	}
	if !httpguts.ValidHeaderFieldName(name) {
		return Usagef("the header in %s has no valid name before its colon: write 'NAME: VALUE'", place)
	}
	key := textproto.CanonicalMIMEHeaderKey(name)
	if refusedHeaders[key] || strings.HasPrefix(key, refusedPrefix) {
		return Usagef("the header %s cannot be set: it belongs to the connection itself", name)
	}
	if !httpguts.ValidHeaderFieldValue(value) {
		return Usagef("the value of the header %s has a line break or another control character in it", name)
	}
	header.Add(key, value)
	return nil
}
