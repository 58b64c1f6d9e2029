package debug

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"example.com/converge/server/internal/presence"
)

// StatusPath is where the status is.
const StatusPath = "/status"

// Status is how the server stands, for server status.
type Status struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Now     time.Time `json:"now"`
	// Address is what it listens on, TLS whether it speaks that itself.
	Address string `json:"address"`
	TLS     bool   `json:"tls"`
	Ready   bool   `json:"ready"`
	// Access says in words who may come in.
	Access string `json:"access"`
	// Open counts connections, of which newcomers are refused beyond Limit; 0 is
	// none.
	Open  int64 `json:"open_connections"`
	Limit int64 `json:"open_connections_limit"`
	// Parked, Kept and Viewers are as in Live.
	Parked  int `json:"parked_connections"`
	Kept    int `json:"kept_ids"`
	Viewers int `json:"viewers"`
	// ToAgent and ToClient are the payload bytes since the start.
	ToAgent  int64 `json:"to_agent"`
	ToClient int64 `json:"to_client"`
	// Loaded is when the files that hold were read, Problem why those that are
	// there now cannot be used.
	Loaded  time.Time `json:"loaded"`
	Problem string    `json:"problem,omitempty"`
	// CertificateEnd is when the certificate that is served ends.
	CertificateEnd *time.Time `json:"certificate_end,omitempty"`
	// AuditLost counts events of which the audit log has no line.
	AuditLost uint64 `json:"audit_lost"`
	// Memory is what the process has from the system, in bytes.
	Memory     uint64 `json:"memory"`
	Goroutines int    `json:"goroutines"`
	// Agents and Clients are who is here.
	Agents  []presence.Agent  `json:"agents"`
	Clients []presence.Client `json:"clients"`
}

// forwards are headers by which a proxy says that it asks for somebody else.
var forwards = []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"}

// serveStatus answers this machine alone, whether others may have the figures
// or not: ids are not for everybody who may count them. An address of this
// machine may be that of a browser which a page elsewhere has led here, or of a
// proxy, so the request must name this machine too, and no proxy.
func serveStatus(status func() Status) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		addr, err := netip.ParseAddr(host)
		forwarded := slices.ContainsFunc(forwards, func(name string) bool { return r.Header.Get(name) != "" })
		if err != nil || !addr.Unmap().IsLoopback() || !askedLocally(r) || forwarded {
			http.Error(w, "the status is for the machine itself: ask there", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(status()) // to somebody who may have gone
	}
}
