package boxconfig

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"

	"example.com/converge/container"
)

// mounts adds folders and volumes.
func (o Options) mounts(cfg *container.Config) error {
	host := &cfg.Execution.Host
	for _, text := range o.Mounts {
		m, err := parseMount(text)
		if err != nil {
			return fmt.Errorf("--container-mount %.256q: %w", text, err)
		}
		host.Mounts = append(host.Mounts, m)
	}
	for _, text := range o.Volumes {
		if err := checkVolume(text); err != nil {
			return fmt.Errorf("--container-volume %.256q: %w", text, err)
		}
		host.Binds = append(host.Binds, text)
	}
	return nil
}

// parseMount reads what docker's --mount has: type, source, target, readonly and
// tmpfs-size. All else stands in the file.
func parseMount(text string) (mount.Mount, error) {
	m := mount.Mount{Type: mount.TypeVolume}
	for part := range strings.SplitSeq(text, ",") {
		key, value, given := strings.Cut(part, "=")
		var err error
		switch key {
		case "type":
			m.Type = mount.Type(value)
			if !slices.Contains([]mount.Type{mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage}, m.Type) {
				return m, fmt.Errorf("the type is bind, volume, tmpfs or image")
			}
		case "source", "src":
			m.Source = value
		case "target", "dst", "destination":
			m.Target = value
		case "readonly", "ro":
			m.ReadOnly = true
			if given {
				m.ReadOnly, err = strconv.ParseBool(value)
			}
		case "tmpfs-size":
			m.TmpfsOptions = &mount.TmpfsOptions{}
			m.TmpfsOptions.SizeBytes, err = strconv.ParseInt(value, 10, 64)
		default:
			return m, fmt.Errorf("%.32q is not known here: there are type, source, target, readonly and tmpfs-size, and in --container-config all others", key)
		}
		if err != nil {
			return m, fmt.Errorf("the value of %s cannot be used", key)
		}
	}
	switch {
	case !path.IsAbs(m.Target):
		return m, fmt.Errorf("the target must be a path in the container that begins with /")
	case m.Type == mount.TypeBind && m.Source == "":
		return m, fmt.Errorf("a bind needs a source, a path on the engine's machine")
	case m.Type == mount.TypeTmpfs && m.Source != "":
		return m, fmt.Errorf("a tmpfs has no source")
	case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return m, fmt.Errorf("tmpfs-size is for the type tmpfs")
	}
	return m, nil
}

// checkVolume looks at what docker's --volume has, which engines take as it is.
func checkVolume(text string) error {
	parts := strings.Split(text, ":")
	if len(parts) == 3 && len(parts[0]) == 1 || len(parts) == 4 { // C:\folder
		parts = append([]string{parts[0] + ":" + parts[1]}, parts[2:]...)
	}
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || !path.IsAbs(parts[1]) {
		return fmt.Errorf("write SOURCE:TARGET, or SOURCE:TARGET:ro, with a TARGET that begins with /")
	}
	return nil
}

// Warnings says what of a configuration gives its users more than a container.
func Warnings(cfg *container.Config) []string {
	var all []string
	h := &cfg.Execution.Host
	sockets := append([]string{engineSocket(cfg.Connection.Host)}, usualSockets...)
	shown := func(source string) bool {
		source = path.Clean(source)
		if base := path.Base(source); source == "/" || base == "docker.sock" || base == "podman.sock" {
			return true
		}
		return slices.ContainsFunc(sockets, func(socket string) bool { return source == socket || strings.HasPrefix(socket, source+"/") })
	}
	bind := func(text string) bool {
		source, _, _ := strings.Cut(text, ":")
		return path.IsAbs(source) && shown(source)
	}
	if slices.ContainsFunc(h.Binds, bind) || slices.ContainsFunc(h.Mounts, func(m mount.Mount) bool { return m.Type == mount.TypeBind && shown(m.Source) }) {
		all = append(all, "the engine's socket is mounted in the container: whoever logs in can become root of the engine's machine")
	}
	if inTheClear(&cfg.Connection) {
		all = append(all, "the engine is reached without TLS: whoever sees that traffic can become root of the engine's machine")
	}
	if h.Privileged {
		all = append(all, "the container is privileged: whoever logs in can become root of the engine's machine")
	}
	for _, mode := range []string{string(h.PidMode), string(h.NetworkMode)} {
		if mode == "host" {
			all = append(all, "the container shares processes or network with the engine's machine: whoever logs in reaches what listens there on loopback")
			break
		}
	}
	return all
}

// inTheClear reports whether what the engine is told crosses a network as it is.
func inTheClear(c *container.ConnectionConfig) bool {
	u, err := url.Parse(cmp.Or(c.Host, os.Getenv("DOCKER_HOST")))
	if err != nil || u.Scheme != "tcp" && u.Scheme != "http" || c.CACert != "" || os.Getenv("DOCKER_CERT_PATH") != "" || os.Getenv("DOCKER_TLS_VERIFY") != "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

// usualSockets are where engines listen, also those that are reached otherwise.
var usualSockets = []string{"/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock"}

// engineSocket is the path of the engine's socket; "" where it has none.
func engineSocket(host string) string {
	if host == "" {
		host = os.Getenv("DOCKER_HOST")
	}
	if host == "" {
		return "/var/run/docker.sock"
	}
	socket, _ := strings.CutPrefix(host, "unix://")
	if !path.IsAbs(socket) {
		return ""
	}
	return path.Clean(socket)
}
