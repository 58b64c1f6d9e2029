// Package meter counts for Prometheus what dispatch does. Its labels are flavours
// and fixed words: repositories are many, and none of a stranger's business.
package meter

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// buckets are for builds, in seconds.
var buckets = []float64{1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400}

// Gauges are asked when somebody looks.
type Gauges struct {
	// Live is how many builds are under way, Statuses and Deliveries how much
	// waits in the outbox, Followed whether Nomad can be watched.
	Live, Statuses, Deliveries func() int
	Followed                   func() bool
}

// Meter counts. Its methods may be called concurrently.
type Meter struct {
	registry *prometheus.Registry
	hooks    *prometheus.CounterVec
	builds   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	statuses *prometheus.CounterVec
	debug    *prometheus.CounterVec
}

// New makes a Meter.
func New() *Meter {
	m := &Meter{
		registry: prometheus.NewRegistry(),
		hooks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dispatch_webhooks_total", Help: "Webhooks by the status that was answered.",
		}, []string{"code"}),
		builds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dispatch_builds_total", Help: "Builds that have ended, by flavour and state.",
		}, []string{"flavor", "state"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dispatch_build_duration_seconds", Help: "From a build's dispatch to its end.", Buckets: buckets,
		}, []string{"flavor"}),
		statuses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dispatch_statuses_total", Help: "Commit statuses: sent, retried, or refused by the forge.",
		}, []string{"result"}),
		debug: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dispatch_debug_reports_total", Help: "Reports of builders by state: failed, open, closed.",
		}, []string{"state"}),
	}
	m.registry.MustRegister(m.hooks, m.builds, m.duration, m.statuses, m.debug,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Watch adds the gauges.
func (m *Meter) Watch(g Gauges) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("dispatch_live_builds", "Builds that wait or run.", func() float64 { return float64(g.Live()) })
	gauge("dispatch_outbox_statuses", "Statuses that wait for their forges.", func() float64 { return float64(g.Statuses()) })
	gauge("dispatch_outbox_deliveries", "Webhooks that wait for Nomad or Consul.", func() float64 { return float64(g.Deliveries()) })
	gauge("dispatch_nomad_up", "1 where Nomad can be watched.", func() float64 {
		if g.Followed() {
			return 1
		}
		return 0
	})
}

// Handler serves the figures.
func (m *Meter) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Webhook counts an answer.
func (m *Meter) Webhook(code int) { m.hooks.WithLabelValues(strconv.Itoa(code)).Inc() }

// Ended counts a build.
func (m *Meter) Ended(flavor, state string, took time.Duration) {
	m.builds.WithLabelValues(flavor, state).Inc()
	m.duration.WithLabelValues(flavor).Observe(max(0, took.Seconds()))
}

// Status counts a try: sent, retried or refused.
func (m *Meter) Status(result string) { m.statuses.WithLabelValues(result).Inc() }

// Debug counts a report.
func (m *Meter) Debug(state string) { m.debug.WithLabelValues(state).Inc() }
