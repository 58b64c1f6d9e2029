//go:build unix

package enginetest

import (
	"archive/tar"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/container"
)

// ServeHTTP answers a request.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	e.mu.Lock()
	e.requests = append(e.requests, r.Method+" "+path)
	e.mu.Unlock()
	if e.Fault != nil && e.Fault(w, r) {
		return
	}
	if path == "/_ping" {
		w.Header().Set("Api-Version", e.Version)
		return
	}
	if rest, ok := strings.CutPrefix(path, "/v"); ok {
		_, path, _ = strings.Cut(rest, "/")
	}
	parts := strings.Split(path, "/")
	switch {
	case parts[0] == "images" && parts[1] == "create":
		e.pull(w, r)
	case parts[0] == "images":
		e.image(w, strings.TrimSuffix(strings.Join(parts[1:], "/"), "/json"))
	case path == "containers/create":
		e.create(w, r)
	case path == "containers/json":
		e.ps(w, r)
	case parts[0] == "containers":
		b := e.find(parts[1])
		if b == nil {
			Say(w, http.StatusNotFound, "No such container: %s", parts[1])
			return
		}
		e.serveBox(w, r, b, strings.Join(parts[2:], "/"))
	case parts[0] == "exec" && len(parts) == 3:
		e.mu.Lock()
		p := e.execs[parts[1]]
		e.mu.Unlock()
		if p == nil || e.find(p.box.id) == nil {
			Say(w, http.StatusNotFound, "No such exec instance: %s", parts[1])
			return
		}
		e.serveExec(w, r, p, parts[2])
	default:
		Say(w, http.StatusNotFound, "page not found")
	}
}

func (e *Engine) serveBox(w http.ResponseWriter, r *http.Request, b *box, what string) {
	switch {
	case r.Method == http.MethodDelete:
		b.kill()
		e.mu.Lock()
		delete(e.containers, b.id)
		e.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case what == "json":
		answer(w, http.StatusOK, b.state())
	case what == "start":
		if err := b.main.start(nil); err != nil {
			Say(w, http.StatusBadRequest, "failed to create shim task: %v", err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case what == "kill":
		b.main.signal(r.URL.Query().Get("signal"))
		w.WriteHeader(http.StatusNoContent)
	case what == "resize":
		b.main.resize(w, r)
	case what == "attach":
		b.main.attach(w, r)
	case what == "archive" && r.Method == http.MethodHead:
		b.stat(w, r.URL.Query().Get("path"))
	case what == "archive" && r.Method == http.MethodPut:
		if err := unpack(r.Body, filepath.Join(b.root, r.URL.Query().Get("path"))); err != nil {
			Say(w, http.StatusInternalServerError, "%v", err)
		}
	case what == "exec":
		e.prepare(w, r, b)
	default:
		Say(w, http.StatusNotFound, "page not found")
	}
}

func (e *Engine) serveExec(w http.ResponseWriter, r *http.Request, p *program, what string) {
	switch what {
	case "json":
		running, code := p.state()
		answer(w, http.StatusOK, map[string]any{"ID": p.id, "Running": running, "ExitCode": code})
	case "start":
		p.attach(w, r)
	case "resize":
		p.resize(w, r)
	default:
		Say(w, http.StatusNotFound, "page not found")
	}
}

func (e *Engine) image(w http.ResponseWriter, ref string) {
	e.mu.Lock()
	i, ok := e.Images[ref]
	e.mu.Unlock()
	if !ok {
		Say(w, http.StatusNotFound, "No such image: %s", ref)
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"Os": "linux", "Architecture": cmp.Or(i.Architecture, "amd64"),
		"Config": map[string]any{"Entrypoint": i.Entrypoint, "Cmd": i.Cmd},
	})
}

func (e *Engine) pull(w http.ResponseWriter, r *http.Request) {
	ref := r.URL.Query().Get("fromImage")
	e.mu.Lock()
	defer e.mu.Unlock()
	i, ok := e.Registry[ref]
	e.pulls = append(e.pulls, ref+" "+r.URL.Query().Get("tag")+" "+r.Header.Get("X-Registry-Auth"))
	if !ok {
		// The status was sent when the registry was asked.
		answer(w, http.StatusOK, map[string]any{"status": "Pulling from " + ref})
		_ = json.NewEncoder(w).Encode(map[string]any{"errorDetail": map[string]string{"message": "pull access denied for " + ref}})
		return
	}
	e.Images[ref] = i
	answer(w, http.StatusOK, map[string]any{"status": "Downloaded"})
}

func (e *Engine) create(w http.ResponseWriter, r *http.Request) {
	var req container.CreateRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		Say(w, http.StatusBadRequest, "%v", err)
		return
	}
	name := r.URL.Query().Get("name")
	if e.find(name) != nil {
		Say(w, http.StatusConflict, "Conflict. The container name %q is already in use", name)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	i, ok := e.Images[req.Image]
	if !ok {
		Say(w, http.StatusNotFound, "No such image: %s", req.Image)
		return
	}
	argv := append(slices.Clone(req.Entrypoint), req.Cmd...)
	if req.Entrypoint == nil {
		argv = append(slices.Clone(i.Entrypoint), req.Cmd...)
		if req.Cmd == nil {
			argv = append(argv, i.Cmd...)
		}
	}
	b := &box{engine: e, id: e.id("c"), name: name, ref: req.Image, image: i, labels: req.Labels}
	b.root = filepath.Join(e.folder, b.id)
	if err := os.Mkdir(b.root, 0o755); err != nil {
		Say(w, http.StatusInternalServerError, "%v", err)
		return
	}
	for volume := range req.Volumes {
		if err := os.MkdirAll(filepath.Join(b.root, volume), 0o755); err != nil {
			Say(w, http.StatusInternalServerError, "%v", err)
			return
		}
	}
	b.main = newProgram(b, b.id, argv, req.Env, req.Tty)
	e.containers[b.id] = b
	e.created = append(e.created, req)
	answer(w, http.StatusCreated, map[string]any{"Id": b.id})
}

func (e *Engine) ps(w http.ResponseWriter, r *http.Request) {
	var filters struct{ Label []string }
	_ = json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters)
	list := []map[string]any{}
	for _, b := range e.list() {
		running, _ := b.main.state()
		fits := running || r.URL.Query().Get("all") == "true"
		for _, want := range filters.Label {
			name, value, given := strings.Cut(want, "=")
			have, ok := b.labels[name]
			fits = fits && ok && (!given || have == value)
		}
		if fits {
			list = append(list, map[string]any{"Id": b.id, "Names": []string{"/" + b.name}, "Labels": b.labels})
		}
	}
	answer(w, http.StatusOK, list)
}

func (e *Engine) prepare(w http.ResponseWriter, r *http.Request, b *box) {
	var req container.ExecCreateRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		Say(w, http.StatusBadRequest, "%v", err)
		return
	}
	if running, _ := b.main.state(); !running {
		Say(w, http.StatusConflict, "Container %s is not running", b.id)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := newProgram(b, e.id("e"), req.Cmd, req.Env, req.Tty)
	p.detachKeys, p.size = req.DetachKeys, req.ConsoleSize
	e.execs[p.id] = p
	answer(w, http.StatusCreated, map[string]any{"Id": p.id})
}

// box is a container.
type box struct {
	engine *Engine
	id     string
	name   string
	ref    string
	image  Image
	labels map[string]string
	root   string // what was unpacked in it
	main   *program
}

func (b *box) state() map[string]any {
	running, code := b.main.state()
	status, n := "created", 0
	if running {
		status = "running"
	}
	if code != nil {
		status, n = "exited", *code
	}
	return map[string]any{
		"Id": b.id, "Name": "/" + b.name, "Image": b.ref,
		"State":  map[string]any{"Running": running, "Status": status, "ExitCode": n},
		"Config": map[string]any{"Labels": b.labels},
	}
}

// kill ends all processes of the container.
func (b *box) kill() {
	b.engine.mu.Lock()
	programs := []*program{b.main}
	for _, p := range b.engine.execs {
		if p.box == b {
			programs = append(programs, p)
		}
	}
	b.engine.mu.Unlock()
	for _, p := range programs {
		p.signal("SIGKILL")
		p.cut()
	}
}

func (b *box) stat(w http.ResponseWriter, path string) {
	size := int64(0)
	info, err := os.Stat(filepath.Join(b.root, path))
	switch {
	case err == nil:
		size = info.Size()
	case b.engine.Paths[path] != "", slices.Contains(b.image.Files, path), path == "/bin/sh" && !b.image.NoShell:
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	text, _ := json.Marshal(map[string]any{"name": filepath.Base(path), "size": size, "mode": 0o755})
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(text))
}

// local returns the argument as this machine has it.
func (b *box) local(arg string) string {
	if path, ok := b.engine.Paths[arg]; ok {
		return path
	}
	if strings.HasPrefix(arg, "/") {
		if path := filepath.Join(b.root, arg); path != b.root {
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	return arg
}

func unpack(r io.Reader, folder string) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(folder, filepath.Clean("/"+h.Name))
		if h.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			continue
		}
		content, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		if err := write(path, content, h.FileInfo().Mode()); err != nil {
			return err
		}
	}
}

// write writes a program. Meanwhile no process is started from here, which would
// inherit the file and keep it from being run.
func write(path string, content []byte, mode os.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, content, mode)
}
