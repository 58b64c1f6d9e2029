package sshd

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"example.com/converge/agent/internal/backend"
)

const (
	// internalSFTP is what the sftp subsystem is called as a command, and the
	// forced command that stands for it (sshd_config(5)).
	internalSFTP = "internal-sftp"
	// originalCommand is the variable that tells a forced command what the
	// client asked for (sshd(8)).
	originalCommand = "SSH_ORIGINAL_COMMAND"
)

// checkForced refuses what contradicts itself.
func checkForced(cfg *Config) error {
	switch {
	case strings.IndexByte(cfg.ForceCommand, 0) >= 0:
		return errors.New("cannot force a command with a NUL in it: leave it out")
	case cfg.ForceCommand == internalSFTP && cfg.NoSFTP:
		return errors.New("cannot force internal-sftp where sftp is turned off: choose one of them")
	}
	return nil
}

// start begins what the client asked for, or what is forced in its place: a
// shell (line is ""), a command, or the sftp subsystem. It reports whether the
// session could begin it, and returns what to run.
func (s *session) start(k Kind, line string) (ok bool, then func()) {
	forced := s.forced()
	switch {
	case forced == internalSFTP && s.server.cfg.NoSFTP: // a certificate's
		return false, nil
	case forced == "" && k == SFTP, forced == internalSFTP:
		k, then = SFTP, s.runSFTP
	case forced == "":
		then = func() { s.run(line) }
	default:
		if k == SFTP {
			k = Exec
		}
		then = func() {
			s.original = line
			s.run(forced)
		}
	}
	if !s.begin(k) {
		return false, nil
	}
	return true, then
}

// forced is the command that is run in place of any other: the agent's own, or
// else that of the user's certificate; "" is none.
func (s *session) forced() string {
	return cmp.Or(s.server.cfg.ForceCommand, s.conn.grant.ForceCommand)
}

// addForced tells a forced command, in its environment, what the client asked
// for. Nobody else can: not the client, nor a server that this one runs under.
func (s *session) addForced(p *backend.Program) {
	p.Unset = []string{originalCommand}
	p.Env = slices.DeleteFunc(p.Env, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return name == originalCommand
	})
	if s.original != "" {
		p.Env = append(p.Env, originalCommand+"="+s.original)
	}
}
