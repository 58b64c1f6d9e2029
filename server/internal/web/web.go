package web

import (
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed assets
var embedded embed.FS

const (
	// pagePolicy lets the embedded page load its own style sheet and icon and
	// send its own form, and nothing else (Content Security Policy Level 3).
	pagePolicy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

	// textPolicy is for what is not a page.
	textPolicy = "default-src 'none'; frame-ancestors 'none'"

	// staticPolicy leaves an operator's own pages free to do what they like,
	// except to be framed by somebody else's.
	staticPolicy = "frame-ancestors 'none'"
)

// Config says what a Handler serves. The zero value serves the embedded page
// and offers no downloads.
type Config struct {
	// Downloads is a folder with files named TOOL-OS-ARCH, with .exe behind
	// it for windows, such as agent-linux-amd64: TOOL is agent, wsproxy, tcptows
	// or guest, OS linux, darwin or windows, ARCH amd64 or arm64, or armv7 for
	// linux. Other files in it are never served. Empty means that no downloads
	// are offered.
	Downloads string

	// Static is a folder whose files replace the embedded pages. It must have
	// an index.html, in which @secure@ and @host@ are filled in.
	Static string

	// Origins tells how requesters address this server; nil trusts nothing
	// but the request's own Host.
	Origins *Origins

	// Logger is told of files that cannot be served; nil discards.
	Logger *slog.Logger
}

// Handler serves the pages and downloads; it may be used concurrently. Answers
// can be long (a download over a slow line): the http.Server's WriteTimeout
// must allow for that.
type Handler struct {
	downloads *downloads
	static    string
	origins   *Origins
	log       *slog.Logger
	assets    map[string]asset
	newID     func() string // replaced by tests
}

// New checks cfg's folders and makes a Handler. The folders are opened anew
// for each request, so that files and folders may be replaced meanwhile.
func New(cfg Config) (*Handler, error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{
		origins: cfg.Origins,
		log:     log,
		// 26 characters of base32, at least 128 bits: nobody guesses an id
		// that was copied from the page.
		newID: func() string { return strings.ToLower(rand.Text()) },
	}
	var err error
	if h.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	dir, err := folder("downloads", cfg.Downloads)
	if err != nil {
		return nil, err
	}
	h.downloads = newDownloads(dir, log)
	if h.static, err = folder("static", cfg.Static); err != nil {
		return nil, err
	}
	if h.static != "" {
		if _, err := h.readIndex(); err != nil {
			return nil, fmt.Errorf("read the home page of the static folder %q: %w; the folder needs an index.html", cfg.Static, err)
		}
	}
	return h, nil
}

// folder returns dir as an absolute path after a check that it is a folder
// that can be opened.
func folder(what, dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	bad := func(err error, hint string) (string, error) {
		return "", fmt.Errorf("open the %s folder %q: %w%s", what, dir, err, hint)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return bad(err, "")
	}
	info, err := os.Stat(abs)
	if err == nil && !info.IsDir() {
		return bad(errNotFolder, "; name the folder that holds the files")
	}
	if err == nil {
		var root *os.Root
		if root, err = os.OpenRoot(abs); err == nil { // as each request will
			err = root.Close()
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return bad(errNoFolder, "; make it, or leave the option out")
	case errors.Is(err, fs.ErrPermission):
		return bad(err, "; the server's user must be allowed to read it")
	case err != nil:
		return bad(err, "")
	}
	return abs, nil
}

var (
	errNoFolder  = errors.New("it does not exist")
	errNotFolder = errors.New("it is not a folder")
)

// ServeHTTP answers GET and HEAD for the home page, the downloads under /docs/
// and the page's files. It never redirects, and it takes paths without the
// prefix that a reverse proxy may show outside: the proxy strips it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Content-Security-Policy", textPolicy)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "Only GET and HEAD are understood here.")
		return
	}
	if name, ok := strings.CutPrefix(r.URL.Path, "/docs/"); ok && h.downloads.serve(w, r, name) {
		return
	}
	switch {
	case h.static != "":
		h.serveStatic(w, r)
	case r.URL.Path == "/":
		h.serveHome(w, r)
	default:
		h.serveAsset(w, r)
	}
}

// refuse answers with one sentence of plain text, which never repeats anything
// that the requester sent.
func refuse(w http.ResponseWriter, status int, sentence string) {
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A requester that has gone away is no concern of ours.
	_, _ = io.WriteString(w, sentence+"\n")
}

// noRoom reports whether a file could not be opened because too many are open
// already: that is over in a moment, and no reason to call the file missing.
func noRoom(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

func refuseNoRoom(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "5")
	refuse(w, http.StatusServiceUnavailable, "The server has no room for more open files; try again in a moment.")
}

func refuseNotFound(w http.ResponseWriter) {
	refuse(w, http.StatusNotFound, "There is nothing at this address; the server's home page shows what there is.")
}

// asset is an embedded file of the home page.
type asset struct {
	contentType string
	body        string
	etag        string
}

func loadAssets() (map[string]asset, error) {
	types := map[string]string{
		"assets/style.css": "text/css; charset=utf-8",
		"assets/icon.svg":  "image/svg+xml",
	}
	assets := make(map[string]asset, len(types))
	for name, contentType := range types {
		body, err := embedded.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read the embedded file %s: %w", name, err)
		}
		sum := sha256.Sum256(body)
		assets["/"+name] = asset{contentType, string(body), etag(hex.EncodeToString(sum[:]))}
	}
	return assets, nil
}

func (h *Handler) serveAsset(w http.ResponseWriter, r *http.Request) {
	a, ok := h.assets[r.URL.Path]
	if !ok {
		refuseNotFound(w)
		return
	}
	header := w.Header()
	header.Set("Content-Type", a.contentType)
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", a.etag)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(a.body))
}

// etag makes a strong entity tag (RFC 9110 §8.8.3) of a SHA-256 sum in hex.
func etag(sum string) string { return `"sha256-` + sum + `"` }
