package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"example.com/converge/gitgate/internal/gitcmd"
)

// check looks at what must not be twice, and at what needs something else.
func (r *reader) check() {
	c := r.config
	paths, directories, names := map[string]*Repo{}, map[string]*Repo{}, map[string]*Repo{}
	ways := map[*Repo][]string{}
	for _, repo := range c.Repos {
		ways[repo] = waysTo(repo.Directory)
		for _, unique := range []struct {
			what   string
			values []string
			seen   map[string]*Repo
		}{
			{"path", []string{strings.TrimSuffix(repo.Path, "/")}, paths},
			{"directory", ways[repo], directories},
			{"name", []string{repo.Name}, names},
		} {
			var other *Repo
			for _, value := range unique.values {
				if same := unique.seen[value]; same != nil && same != repo {
					other = same
				}
				unique.seen[value] = repo
			}
			if other != nil {
				r.wrong(repo.Line, "the %s %s is that of the repository in line %d as well", unique.what, unique.values[0], other.Line)
			}
		}
	}
	for _, outer := range c.Repos {
		for _, inner := range c.Repos {
			if inner == outer || !inside(ways[inner], ways[outer]) {
				continue
			}
			outer.Inner = append(outer.Inner, inner.Directory)
			if outer.Clean || outer.Publish == Symlink { // else files that are not its own stay there
				r.wrong(inner.Line, "the directory %s is inside that of the repository in line %d, whose updates with clean or publish would remove it: move it out", inner.Directory, outer.Line)
			}
		}
		slices.Sort(outer.Inner)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		r.wrong(0, "tls_cert and tls_key go together: give both or none")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err == nil {
		r.wrong(0, "listen is %.64q, and is to be an address alone: give the port as port", c.Listen)
	}
	if c.MetricsListen != "" {
		host, port, err := net.SplitHostPort(c.MetricsListen)
		if err != nil || port == "" {
			r.wrong(0, "metrics_listen must be HOST:PORT, such as 127.0.0.1:9155")
		} else if c.Port != 0 && port == strconv.Itoa(c.Port) && (host == c.Listen || everyAddress(host) || everyAddress(c.Listen)) {
			r.wrong(0, "metrics_listen is where webhooks arrive, by listen and port: give it another port")
		}
	}
	// Beside the configuration, as everything else of the service.
	if c.KnownHosts == "" && c.File != "" {
		name := filepath.Join(filepath.Dir(c.File), "known_hosts")
		if _, err := os.Stat(name); err == nil {
			c.KnownHosts = name
		}
	}
	for _, repo := range c.Repos {
		if repo.KnownHosts == "" {
			repo.KnownHosts = c.KnownHosts
		}
		for _, file := range []*string{&repo.KnownHosts, &repo.CAFile, &repo.SSHKey, &repo.Trigger} {
			if *file == "" {
				continue
			}
			if full, err := filepath.Abs(*file); err == nil { // git runs elsewhere
				*file = full
			}
		}
	}
}

func everyAddress(host string) bool {
	return host == "" || net.ParseIP(strings.Trim(host, "[]")).IsUnspecified()
}

// waysTo are the paths of a folder: as it is given, without the symbolic links on
// the way, and where it is a symbolic link, as with publish, where that leads.
func waysTo(folder string) []string {
	return slices.Compact([]string{folder, filepath.Join(resolve(filepath.Dir(folder)), filepath.Base(folder)), resolve(folder)})
}

// resolve is a path without symbolic links, as far as it is there.
func resolve(path string) string {
	if full, err := filepath.EvalSymlinks(path); err == nil {
		return full
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolve(parent), filepath.Base(path))
}

// inside reports whether one of the paths is below one of a folder's.
func inside(paths, folder []string) bool {
	return slices.ContainsFunc(paths, func(path string) bool {
		return slices.ContainsFunc(folder, func(above string) bool { return strings.HasPrefix(path, above+string(filepath.Separator)) })
	})
}

// nested reports whether the directory is below that of another repository.
func (c *Config) nested(repo *Repo) bool {
	return slices.ContainsFunc(c.Repos, func(outer *Repo) bool {
		return inside(waysTo(repo.Directory), waysTo(outer.Directory))
	})
}

// goodRef reports whether git takes it for the full name of a ref
// (git-check-ref-format(1)).
func goodRef(ref string) bool {
	if len(ref) > 1024 || strings.HasSuffix(ref, "/") || strings.HasSuffix(ref, ".") || strings.Contains(ref, "..") ||
		strings.Contains(ref, "@{") || strings.ContainsAny(ref, " ~^:?*[\\\x7f") {
		return false
	}
	for component := range strings.SplitSeq(ref, "/") {
		if component == "" || component[0] == '.' || strings.HasSuffix(component, ".lock") {
			return false
		}
	}
	// As a branch's or tag's name it must not look like an option.
	return !strings.ContainsFunc(ref, func(r rune) bool { return r < ' ' }) && strings.Count(ref, "/") > 1 && ref[strings.Index(ref[5:], "/")+6] != '-'
}

// goodRemote reports whether a name can stand in a key of git's configuration
// and in a ref.
func goodRemote(name string) bool {
	if name == "" || len(name) > 64 || strings.Contains(name, "..") || strings.HasSuffix(name, ".lock") {
		return false
	}
	for i, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", r)) {
			return false
		}
	}
	return !strings.HasSuffix(name, ".")
}

// readableByOthers tells it where files have such modes.
func readableByOthers(path string) bool {
	info, err := os.Stat(path)
	return err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0
}

// CheckFiles says what is wrong with the files and folders that are named, as
// check-config does. It changes nothing.
func (c *Config) CheckFiles() []error {
	var wrong []error
	for _, repo := range c.Repos {
		bad := func(format string, a ...any) {
			wrong = append(wrong, fmt.Errorf("line %d: "+format, append([]any{repo.Line}, a...)...))
		}
		for _, file := range []struct{ key, name string }{{"sshPrivKey", repo.SSHKey}, {"knownHosts", repo.KnownHosts}, {"caFile", repo.CAFile}} {
			if file.name == "" {
				continue
			}
			f, err := os.Open(file.name)
			if err != nil {
				bad("%s cannot be read: %w", file.key, err)
				continue
			}
			info, err := f.Stat()
			_ = f.Close()
			if err == nil && file.key == "sshPrivKey" && runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 {
				bad("sshPrivKey %s may be read by every user of this machine: chmod o-rwx it", file.name)
			}
			if file.key == "sshPrivKey" {
				if err := gitcmd.CheckKey(file.name, repo.SSHPassPhrase); err != nil {
					bad("%w", err)
				}
			}
		}
		for _, file := range repo.secretFiles {
			if readableByOthers(file.name) {
				bad("%s %s may be read by every user of this machine: chmod o-rwx it", file.key, file.name)
			}
		}
		for _, folder := range []struct{ key, name string }{{"directory", filepath.Dir(repo.Directory)}, {"trigger", filepath.Dir(repo.Trigger)}} {
			if folder.key == "trigger" && repo.Trigger == "" {
				continue
			}
			if info, err := os.Stat(folder.name); errors.Is(err, fs.ErrNotExist) && folder.key == "directory" && c.nested(repo) {
				continue // an update makes it
			} else if err != nil {
				bad("the folder of %s is not there: %w", folder.key, err)
			} else if !info.IsDir() {
				bad("the parent of %s is no folder: %s", folder.key, folder.name)
			}
		}
		if program := repo.program(); program != "" {
			if _, err := exec.LookPath(program); err != nil {
				hint := ""
				if len(repo.Exec) == 1 && strings.Contains(program, " ") {
					hint = ": give a list, such as [sh, -c, COMMANDS]"
				}
				bad("exec cannot be run: %w%s", err, hint)
			}
		}
	}
	if out := c.Logging.Output; out != "" && out != "stdout" {
		if _, err := os.Stat(filepath.Dir(out)); err != nil {
			wrong = append(wrong, fmt.Errorf("the folder of logging.output is not there: %w", err))
		}
	}
	for _, file := range []struct{ key, name string }{{"tls_cert", c.TLSCert}, {"tls_key", c.TLSKey}} {
		if file.name != "" {
			if f, err := os.Open(file.name); err != nil {
				wrong = append(wrong, fmt.Errorf("%s cannot be read: %w", file.key, err))
			} else {
				_ = f.Close()
			}
		}
	}
	return wrong
}

// program is what exec runs, which may be in the folder; "" where there is none, or
// not yet.
func (r *Repo) program() string {
	if len(r.Exec) == 0 {
		return ""
	}
	name := r.Exec[0]
	if filepath.Base(name) == name || filepath.IsAbs(name) {
		return name
	}
	if _, err := os.Stat(filepath.Join(r.Directory, ".git")); err != nil {
		return ""
	}
	return filepath.Join(r.Directory, name)
}
