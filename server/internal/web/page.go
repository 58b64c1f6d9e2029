package web

import (
	"fmt"
	"html/template"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

var homeTemplate = template.Must(template.ParseFS(embedded, "assets/home.html"))

// module is the path before every tool's module path, taken from this package's
// own so that a change of the module path needs no change here.
var module = strings.TrimSuffix(reflect.TypeFor[Config]().PkgPath(), "/server/internal/web")

// home is what the template of the home page is filled with.
type home struct {
	Origin  Origin
	ID      string
	Offered bool     // any download is there
	Absent  []string // tools without a file for the platform of the plain lines
	Lines   map[string]block
	Tools   []string
	Systems []string // those with a download
	Archs   []string // those with a download
	Rows    []row
}

// block is a run of command lines for a user to type or paste. Name is what
// tests find it by.
type block struct {
	Name  string
	Label string
	Lines []string
}

// row is one platform of the table of downloads.
type row struct {
	Platform string
	Cells    []cell
}

// cell is one download; its Size is empty if it is not there.
type cell struct {
	Tool, File, Href, Size, Sum string
}

// Short is enough of the checksum to compare it by eye.
func (c cell) Short() string { return c.Sum[:12] }

func (h *Handler) serveHome(w http.ResponseWriter, r *http.Request) {
	offers, err := h.downloads.list(r.Context())
	if r.Context().Err() != nil || noRoom(err) {
		h.downloads.refuse(w, err, "")
		return
	}
	// A file that cannot be read now is shown as missing; open has logged it.
	var page strings.Builder
	if err := homeTemplate.Execute(&page, newHome(h.origins.Of(r), h.newID(), offers)); err != nil {
		h.log.Error("home page not served", "err", err)
		refuse(w, http.StatusInternalServerError, "The home page cannot be shown; the server's log says why.")
		return
	}
	w.Header().Set("Content-Security-Policy", pagePolicy)
	writePage(w, page.String())
}

func newHome(origin Origin, id string, offers []offer) home {
	page := home{
		Origin:  origin,
		ID:      id,
		Offered: len(offers) > 0,
		Lines:   make(map[string]block),
		Tools:   tools,
	}
	for _, b := range blocks(origin, id, len(offers) > 0) {
		page.Lines[b.Name] = b
	}
	there := make(map[target]offer, len(offers))
	for _, o := range offers {
		there[o.target] = o
	}
	for _, system := range systems {
		for _, arch := range archs {
			if !possible(system, arch) {
				continue
			}
			r := row{Platform: system + "/" + arch}
			for _, tool := range tools {
				t := target{tool, system, arch}
				c := cell{Tool: tool, File: t.file(), Href: "docs/" + t.file()}
				if o, ok := there[t]; ok {
					c.Size, c.Sum = size(o.size), o.sum
				}
				r.Cells = append(r.Cells, c)
			}
			page.Rows = append(page.Rows, r)
		}
	}
	page.Systems = slices.DeleteFunc(slices.Clone(systems), func(s string) bool {
		return !slices.ContainsFunc(offers, func(o offer) bool { return o.system == s })
	})
	page.Archs = slices.DeleteFunc(slices.Clone(archs), func(a string) bool {
		return !slices.ContainsFunc(offers, func(o offer) bool { return o.arch == a })
	})
	for _, tool := range tools {
		if tool == "guest" { // which agents fetch, and no line
			continue
		}
		if _, ok := there[target{tool, systems[0], archs[0]}]; !ok {
			page.Absent = append(page.Absent, tool)
		}
	}
	return page
}

// blocks returns every run of command lines on the page. Lines are for sh, but
// for the blocks whose names end in -windows, -cmd or -powershell.
func blocks(origin Origin, id string, offered bool) []block {
	root := origin.HTTP()
	agentURL := origin.WS() + "/agent/" + id
	clientURL := origin.WS() + "/client/" + id
	// ssh hands the ProxyCommand to a shell, so the URL is a shell word there
	// too; what word puts around it means nothing inside double quotes.
	proxy := `-oProxyCommand="wsproxy ` + word(clientURL) + `"`

	get := func(tool string) string {
		return fmt.Sprintf("GOBIN=\"$PWD\" go install %s/%s@latest", module, tool)
	}
	job := []string{get("agent")}
	safe := []string{get("agent")}
	safeAgent := "./agent"
	engineer := []string{get("wsproxy"), get("tcptows")}
	if offered {
		linux := target{"agent", systems[0], archs[0]}.file()
		safeAgent = "./" + linux
		job = []string{
			"curl " + word(root+"/docs/agent") + " > agent",
			"chmod 755 agent",
		}
		safe = []string{
			"curl -fO " + word(root+"/docs/"+linux),
			"curl -fO " + word(root+"/docs/"+sumsName),
			// One line, so that a file that fails the check never becomes
			// executable, also where a shell goes on after a failure.
			"sha256sum -c --ignore-missing " + sumsName + " && chmod 755 " + linux,
		}
		engineer = []string{
			"curl -f " + word(root+"/docs/wsproxy") + " > wsproxy",
			"curl -f " + word(root+"/docs/tcptows") + " > tcptows",
			"chmod 755 wsproxy tcptows",
		}
	}
	return []block{
		{"job", "In the job", append(job, "./agent "+word(agentURL))},
		{"job-safe", "In the job, the safer way", append(safe,
			safeAgent+" --authorized-keys authorized_keys "+word(agentURL))},
		{"job-windows", "In a Windows job, cmd or PowerShell", []string{
			`curl.exe -fo agent.exe "` + root + `/docs/agent?os=windows&arch=amd64"`,
			`.\agent.exe "` + agentURL + `"`,
		}},
		{"engineer", "On your machine, once", append(engineer, `PATH="$PWD:$PATH"`)},
		{"ssh-wsproxy", "A shell", []string{"ssh -oServerAliveInterval=10 " + proxy + " abc@localhost"}},
		{"sftp-wsproxy", "Files", []string{"sftp -oServerAliveInterval=10 " + proxy + " abc@localhost"}},
		{"tcptows", "First terminal: the local port", []string{"./tcptows 10000 " + word(clientURL)}},
		{"ssh-tcptows", "Second terminal: a shell", []string{"ssh -oServerAliveInterval=10 -p 10000 abc@localhost"}},
		{"sftp-tcptows", "or files", []string{"sftp -oServerAliveInterval=10 -oPort=10000 abc@localhost"}},
		{"hold", "Hold", []string{`touch "$agentdir/.hold"`}},
		{"hold-longer", "Hold for two hours (GNU touch)", []string{`touch -d '+2 hours' "$agentdir/.hold"`}},
		{"release", "Let go", []string{`rm "$agentdir/.hold"`}},
		{"hold-cmd", "Hold, in cmd", []string{`copy NUL "%agentdir%\.hold"`}},
		{"hold-powershell", "Hold, in PowerShell", []string{`New-Item -Force "$env:agentdir\.hold"`}},
		{"install", "With Go, for the machine that runs it", []string{
			"go install " + module + "/agent@latest",
			"go install " + module + "/wsproxy@latest",
			"go install " + module + "/tcptows@latest",
			"go install " + module + "/guest@latest",
		}},
	}
}

// plainWord holds what no common shell treats specially, in any place of a
// word. Brackets are no part of it (zsh fails on an unmatched pattern), nor is
// the tilde (a pattern under zsh's EXTENDED_GLOB).
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,-]+$`)

// word returns s as one word for a shell. s is a URL made of an Origin and an
// id, or of fixed text, and so has no quote in it.
func word(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + s + "'"
}

// size returns a number of bytes as people read it.
func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	default:
		return fmt.Sprintf("%d B", n)
	}
}
