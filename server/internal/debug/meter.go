package debug

import (
	"regexp"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Buckets of the histograms, in seconds.
var (
	// joinBuckets: a parked connection takes a millisecond, a dial-back a few
	// round trips, and ten seconds is when it is given up.
	joinBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	// sessionBuckets: from a command to a working day.
	sessionBuckets = []float64{1, 10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800}
)

// Meter counts for /metrics. It implements gate.Meter; its methods may be
// called concurrently.
type Meter struct {
	registry *prometheus.Registry
	present  *prometheus.GaugeVec
	joined   *prometheus.CounterVec
	refused  *prometheus.CounterVec
	join     *prometheus.HistogramVec
	session  *prometheus.HistogramVec
}

// NewMeter makes a Meter that also shows the Go runtime's figures.
func NewMeter() *Meter {
	m := &Meter{
		registry: prometheus.NewRegistry(),
		present: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "converge_present", Help: "Agents that are registered, and clients that are connected.",
		}, []string{"role"}),
		joined: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "converge_joined_total", Help: "Agents that have registered, and clients that have been connected.",
		}, []string{"role"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "converge_refused_total", Help: "Agents, clients, dial-backs and viewers that did not get through, by reason.",
		}, []string{"role", "reason"}),
		join: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "converge_join_duration_seconds", Help: "Time from an agent's or client's request until it was registered or connected.", Buckets: joinBuckets,
		}, []string{"role"}),
		session: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "converge_session_duration_seconds", Help: "How long agents were registered and clients connected, of those that have gone.", Buckets: sessionBuckets,
		}, []string{"role"}),
	}
	m.registry.MustRegister(m.present, m.joined, m.refused, m.join, m.session,
		// One figure of the runtime is in per cent, against the conventions.
		collectors.NewGoCollector(collectors.WithoutGoCollectorRuntimeMetrics(regexp.MustCompile("^/gc/gogc:percent$"))),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, role := range []string{"agent", "client"} {
		m.present.WithLabelValues(role)
		m.joined.WithLabelValues(role)
		m.join.WithLabelValues(role)
		m.session.WithLabelValues(role)
	}
	// A rate needs a first value, and what alerts are about is to be there.
	for role, reasons := range map[string][]string{
		"agent": {"credential", "forbidden", "failed"}, "client": {"credential", "forbidden", "no-such-id", "away", "failed"},
		"data": {"forbidden", "failed"}, "viewer": {"credential", "forbidden", "failed"},
	} {
		for _, reason := range reasons {
			m.refused.WithLabelValues(role, reason)
		}
	}
	return m
}

// Refused counts somebody who did not get through.
func (m *Meter) Refused(role, reason string) { m.refused.WithLabelValues(role, reason).Inc() }

// Joined counts somebody in.
func (m *Meter) Joined(role string, took time.Duration) {
	m.present.WithLabelValues(role).Inc()
	m.joined.WithLabelValues(role).Inc()
	m.join.WithLabelValues(role).Observe(took.Seconds())
}

// Left counts somebody out.
func (m *Meter) Left(role string, lasted time.Duration) {
	m.present.WithLabelValues(role).Dec()
	m.session.WithLabelValues(role).Observe(lasted.Seconds())
}

// Live is what is asked when somebody asks for the figures. Functions that are
// nil have no figures; all may be called concurrently.
type Live struct {
	// Version is the program's.
	Version string
	// Moved returns the payload bytes since the start.
	Moved func() (toAgent, toClient int64)
	// Parked and Kept count parked connections, and ids kept for agents that
	// are away.
	Parked, Kept func() int
	// Connections returns how many are open, and where newcomers are refused;
	// 0 is no limit.
	Connections func() (open, limit int64)
	// Ready is false while newcomers are refused because the server ends.
	Ready func() bool
	// CertificateEnd is when the certificate that is served ends.
	CertificateEnd func() time.Time
	// Reload returns when the files of configuration and access that hold were
	// read, and whether those that are there now can be used.
	Reload func() (at time.Time, good bool)
	// AuditLost counts events of which the audit log has no line.
	AuditLost func() uint64
	// Viewers counts sessions pages that are open.
	Viewers func() int
}

// Watch adds the figures of Live. Call it once, before anybody asks.
func (m *Meter) Watch(l Live) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	count := func(name, help string, f func() int) {
		if f != nil {
			gauge(name, help, func() float64 { return float64(f()) })
		}
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "converge_build_info", Help: "Always 1; the labels say which program it is.",
		ConstLabels: prometheus.Labels{"version": l.Version, "go_version": runtime.Version()},
	}, func() float64 { return 1 }))
	if l.Moved != nil {
		m.registry.MustRegister(relayed{l.Moved})
	}
	count("converge_parked_connections", "Connections that agents have parked for their next clients.", l.Parked)
	count("converge_kept_ids", "Ids that are kept for agents that have lost their connections.", l.Kept)
	count("converge_viewers", "Sessions pages that are being looked at.", l.Viewers)
	if f := l.Connections; f != nil {
		gauge("converge_open_connections", "Connections that are open, each with a file descriptor.", func() float64 { open, _ := f(); return float64(open) })
		gauge("converge_open_connections_limit", "Where new sessions are refused because of the limit of open files; 0 is none.", func() float64 { _, limit := f(); return float64(limit) })
	}
	if f := l.Ready; f != nil {
		gauge("converge_ready", "1, or 0 while newcomers are refused because the server is ending.", func() float64 { return truth(f()) })
	}
	if f := l.CertificateEnd; f != nil {
		gauge("converge_certificate_expiry_timestamp_seconds", "When the certificate that is served ends, in Unix time.", func() float64 { return unix(f()) })
	}
	if f := l.Reload; f != nil {
		gauge("converge_config_last_reload_successful", "1, or 0 while the files of configuration and access cannot be used as they are and the old ones hold on.", func() float64 { _, good := f(); return truth(good) })
		gauge("converge_config_last_reload_success_timestamp_seconds", "When those files that hold were read, in Unix time.", func() float64 { at, _ := f(); return unix(at) })
	}
	if f := l.AuditLost; f != nil {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "converge_audit_lost_events_total", Help: "Events of which the audit log has no line.",
		}, func() float64 { return float64(f()) }))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// relayed collects the two counters of bytes, which are of one moment.
type relayed struct {
	moved func() (toAgent, toClient int64)
}

var relayedDesc = prometheus.NewDesc("converge_relayed_bytes_total", "Payload bytes that were moved, of all sessions.", []string{"to"}, nil)

// Describe implements prometheus.Collector.
func (relayed) Describe(ch chan<- *prometheus.Desc) { ch <- relayedDesc }

// Collect implements prometheus.Collector.
func (r relayed) Collect(ch chan<- prometheus.Metric) {
	toAgent, toClient := r.moved()
	ch <- prometheus.MustNewConstMetric(relayedDesc, prometheus.CounterValue, float64(toAgent), "agent")
	ch <- prometheus.MustNewConstMetric(relayedDesc, prometheus.CounterValue, float64(toClient), "client")
}
