package web

import (
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxIndexSize bounds the operator's index.html, which is held in memory while
// it is filled in; in bytes.
const maxIndexSize = 4 << 20

var errNotRegular = errors.New("it is not a regular file")

// serveStatic answers from the operator's folder: its index.html filled in at
// the root, every other regular file as it is, no listing of folders.
func (h *Handler) serveStatic(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", staticPolicy)
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" || name == "index.html" {
		h.serveIndex(w, r)
		return
	}
	f, info, err := openRegular(h.static, name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNotRegular) {
			h.log.Warn("static file not served", "file", name, "err", err)
		}
		if noRoom(err) {
			refuseNoRoom(w)
			return
		}
		refuseNotFound(w)
		return
	}
	defer f.Close()
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, name, info.ModTime(), f)
}

func (h *Handler) serveIndex(w http.ResponseWriter, r *http.Request) {
	page, err := h.readIndex()
	if err != nil {
		h.log.Error("home page not served", "folder", h.static, "err", err)
		if noRoom(err) {
			refuseNoRoom(w)
			return
		}
		refuse(w, http.StatusInternalServerError, "The home page cannot be read; the server's log says why.")
		return
	}
	origin := h.origins.Of(r)
	secure := ""
	if origin.Secure {
		secure = "s"
	}
	page = strings.NewReplacer(
		"@secure@", secure,
		"@host@", html.EscapeString(origin.Host+origin.Prefix),
	).Replace(page)
	writePage(w, page)
}

func (h *Handler) readIndex() (string, error) {
	f, _, err := openRegular(h.static, "index.html")
	if err != nil {
		return "", err
	}
	defer f.Close()
	page, err := io.ReadAll(io.LimitReader(f, maxIndexSize+1))
	if err != nil {
		return "", err
	}
	if len(page) > maxIndexSize {
		return "", fmt.Errorf("index.html is larger than %d bytes", maxIndexSize)
	}
	return string(page), nil
}

// writePage sends an HTML page that holds the requester's view of this server,
// which no cache may hand to somebody else.
func writePage(w http.ResponseWriter, page string) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Length", strconv.Itoa(len(page)))
	// A requester that has gone away is no concern of ours.
	_, _ = io.WriteString(w, page)
}

// openRegular opens the regular file name, a slash-separated path, in dir.
// Symbolic links are followed inside dir only (os.Root). The caller closes the
// file.
func openRegular(dir, name string) (*os.File, fs.FileInfo, error) {
	// Refuses "..", "//" and a trailing slash, and what means more than a name
	// on this system, such as devices and colons on Windows.
	local, err := filepath.Localize(name)
	if err != nil {
		return nil, nil, fs.ErrNotExist
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	// Looked at before opening, because opening a FIFO waits for its writer.
	info, err := root.Stat(local)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errNotRegular
	}
	f, err := root.Open(local)
	if err != nil {
		return nil, nil, err
	}
	// What was opened counts, should the name have changed hands in between.
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}
