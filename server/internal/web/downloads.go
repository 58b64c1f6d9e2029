package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// The programs and platforms that can be downloaded. The first platform is the
// one that a requester gets who does not choose.
var (
	tools   = []string{"agent", "wsproxy", "tcptows", "guest"}
	systems = []string{"linux", "darwin", "windows"}
	archs   = []string{"amd64", "arm64", "armv7"}
)

// possible tells whether there are programs for a system on an architecture.
func possible(system, arch string) bool { return arch != "armv7" || system == "linux" }

const sumsName = "SHA256SUMS"

// target is one program for one platform.
type target struct{ tool, system, arch string }

// program is the name of the file once it has been downloaded.
func (t target) program() string {
	if t.system == "windows" {
		return t.tool + ".exe"
	}
	return t.tool
}

// file is the name of the file in the downloads folder and in SHA256SUMS.
func (t target) file() string {
	name := t.tool + "-" + t.system + "-" + t.arch
	if t.system == "windows" {
		name += ".exe"
	}
	return name
}

func (t target) platform() string { return t.system + "/" + t.arch }

// targets lists everything that can be offered, in the order of SHA256SUMS.
func targets() []target {
	var all []target
	for _, tool := range tools {
		for _, system := range systems {
			for _, arch := range archs {
				if possible(system, arch) {
					all = append(all, target{tool, system, arch})
				}
			}
		}
	}
	return all
}

// downloads serves the programs from a folder.
type downloads struct {
	dir   string // "" if none are offered
	files map[string]target
	sums  *sums
	log   *slog.Logger
}

func newDownloads(dir string, log *slog.Logger) *downloads {
	d := &downloads{dir: dir, files: make(map[string]target), log: log}
	var names []string
	for _, t := range targets() {
		d.files[t.file()] = t
		names = append(names, t.file())
	}
	d.sums = newSums(names)
	return d
}

// serve answers for /docs/name and reports whether that is a download's name,
// so that it was answered, be it with a refusal.
func (d *downloads) serve(w http.ResponseWriter, r *http.Request, name string) bool {
	if name == sumsName {
		d.serveSums(w, r)
		return true
	}
	if t, ok := d.files[name]; ok {
		d.serveFile(w, r, t, t.file())
		return true
	}
	if !slices.Contains(tools, name) {
		return false
	}
	query := r.URL.Query()
	t := target{tool: name, system: query.Get("os"), arch: query.Get("arch")}
	if t.system == "" {
		t.system = systems[0]
	}
	if t.arch == "" {
		t.arch = archs[0]
	}
	if !slices.Contains(systems, t.system) || !slices.Contains(archs, t.arch) {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("Unknown platform: choose os from %s and arch from %s.",
			strings.Join(systems, ", "), strings.Join(archs, ", ")))
		return true
	}
	if !possible(t.system, t.arch) {
		d.refuse(w, errNotOffered, notOffered(t))
		return true
	}
	d.serveFile(w, r, t, t.program())
	return true
}

// notOffered says that t is not there.
func notOffered(t target) string {
	return fmt.Sprintf("This server does not offer %s for %s; its home page shows what it has.", t.tool, t.platform())
}

// serveFile sends t's file, to be saved under the name saveAs.
func (d *downloads) serveFile(w http.ResponseWriter, r *http.Request, t target, saveAs string) {
	f, info, sum, err := d.open(r.Context(), t)
	if err != nil {
		d.refuse(w, err, notOffered(t))
		return
	}
	defer f.Close()
	header := w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Disposition", `attachment; filename="`+saveAs+`"`)
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", etag(sum))
	http.ServeContent(w, r, "", info.ModTime(), f)
}

func (d *downloads) serveSums(w http.ResponseWriter, r *http.Request) {
	offers, err := d.list(r.Context())
	if err != nil {
		d.refuse(w, err, "The checksums cannot be computed; the server's log says why.")
		return
	}
	if len(offers) == 0 {
		refuse(w, http.StatusNotFound, "This server offers no downloads, so there are no checksums.")
		return
	}
	var text bytes.Buffer
	for _, o := range offers {
		fmt.Fprintf(&text, "%s  %s\n", o.sum, o.file())
	}
	sum := sha256.Sum256(text.Bytes())
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", etag(hex.EncodeToString(sum[:])))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text.Bytes()))
}

// refuse answers for a file that could not be served, with the sentence given
// if it is simply not there.
func (d *downloads) refuse(w http.ResponseWriter, err error, notThere string) {
	switch {
	case noRoom(err):
		refuseNoRoom(w)
	case errors.Is(err, errChanging):
		w.Header().Set("Retry-After", "2")
		refuse(w, http.StatusServiceUnavailable, "The file is just being replaced; try again in a moment.")
	case errors.Is(err, errUnreadable):
		refuse(w, http.StatusInternalServerError, "The file cannot be read; the server's log says why.")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		refuse(w, http.StatusServiceUnavailable, "The request ended before the file's checksum was known; try again.")
	default:
		refuse(w, http.StatusNotFound, notThere)
	}
}

// offer is a download that is there.
type offer struct {
	target
	size int64
	sum  string // SHA-256 in lower-case hex
}

// list returns what is there, in the order of targets. Files that are missing
// or refused are left out without an error; those that cannot be read at the
// moment are left out too, and the first such failure is the error beside the
// rest.
func (d *downloads) list(ctx context.Context) ([]offer, error) {
	var (
		offers []offer
		failed error
	)
	for _, t := range targets() {
		f, info, sum, err := d.open(ctx, t)
		switch {
		case err == nil:
			f.Close()
			offers = append(offers, offer{t, info.Size(), sum})
		case ctx.Err() != nil:
			return nil, err
		case !errors.Is(err, errNotOffered) && failed == nil:
			failed = err
		}
	}
	return offers, failed
}

// errNotOffered is what open returns for a file that is not there, or that is
// not to be served.
var errNotOffered = errors.New("not offered")

// open opens t's file and returns its checksum. The caller closes the file,
// which stands at its beginning.
func (d *downloads) open(ctx context.Context, t target) (*os.File, fs.FileInfo, string, error) {
	if d.dir == "" {
		return nil, nil, "", errNotOffered
	}
	f, info, err := openRegular(d.dir, t.file())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("download not offered", "file", t.file(), "err", err)
		}
		if noRoom(err) {
			return nil, nil, "", err
		}
		return nil, nil, "", errNotOffered
	}
	sum, err := d.sums.of(ctx, t.file(), f, info)
	if err != nil {
		f.Close()
		if errors.Is(err, errUnreadable) {
			d.log.Error("download unreadable", "file", t.file(), "err", err)
		}
		return nil, nil, "", err
	}
	return f, info, sum, nil
}
