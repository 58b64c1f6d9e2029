package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"example.com/converge/container/guest/wire"
)

const (
	// display is the X11 display that clients in the container are given, as
	// DISPLAY=localhost:10. Its port is 6000 and the number.
	display = "10"
	x11Port = 6010
	// xauthTime bounds a run of xauth, which waits for a lock.
	xauthTime = 30 * time.Second
)

// addCookie puts the cookie with which X11 clients show that they may connect where
// they look for it: $XAUTHORITY, or .Xauthority in the working folder. xauth gets it
// on its standard input, since everybody can read a command line.
func addCookie(ctx context.Context, setup wire.Setup) error {
	if !made(setup.AuthProtocol, alnum+"-") || !made(setup.AuthCookie, "0123456789abcdefABCDEF") {
		return errors.New("the X11 cookie is not hexadecimal, or its protocol not a word")
	}
	name := ":" + display
	if setup.Screen != "" {
		if !made(setup.Screen, "0123456789") {
			return errors.New("the X11 screen is not a number")
		}
		name += "." + setup.Screen
	}
	file, ok := os.LookupEnv("XAUTHORITY")
	if !ok || file == "" {
		file = ".Xauthority"
	}
	ctx, cancel := context.WithTimeout(ctx, xauthTime)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "xauth", "-q", "-f", file, "source", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("add %s %s %s\n", name, setup.AuthProtocol, setup.AuthCookie))
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return errors.New("X11 needs the program xauth in the container: install it there")
		}
		return fmt.Errorf("cannot add the X11 cookie to %s: %w: %.200s", file, err, strings.TrimSpace(said.String()))
	}
	return nil
}

const alnum = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// made reports whether s has characters of set, at least one, and no others.
func made(s, set string) bool {
	return s != "" && strings.Trim(s, set) == ""
}
