// Package meter counts for Prometheus what gitgate does. It knows repositories by
// name only.
package meter

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// buckets, in seconds: from nothing to do on the same machine to the clone of a
// large repository.
var buckets = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600}

// Meter counts. Its methods may be called concurrently.
type Meter struct {
	registry *prometheus.Registry
	webhooks *prometheus.CounterVec
	syncs    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	success  *prometheus.GaugeVec
	good     *prometheus.GaugeVec
	rewrites *prometheus.CounterVec
	reloads  *prometheus.CounterVec
}

// New makes a Meter; busy tells how many repositories wait or are worked on.
func New(busy func() int) *Meter {
	m := &Meter{
		registry: prometheus.NewRegistry(),
		webhooks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gitgate_webhooks_total", Help: "Requests by repository, empty for those of none, and status that was answered.",
		}, []string{"repo", "code"}),
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gitgate_syncs_total", Help: "Tries to bring a repository up to date: changed, unchanged, or the reason of a failure.",
		}, []string{"repo", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gitgate_sync_duration_seconds", Help: "How long such a try took, with what follows it.", Buckets: buckets,
		}, []string{"repo"}),
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gitgate_last_success_timestamp_seconds", Help: "When the last try succeeded.",
		}, []string{"repo"}),
		good: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gitgate_up", Help: "1 where the last try succeeded, 0 where it failed.",
		}, []string{"repo"}),
		rewrites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gitgate_rewritten_total", Help: "Updates to a history that was rewritten.",
		}, []string{"repo"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gitgate_reloads_total", Help: "Times that a changed configuration was taken in, or refused.",
		}, []string{"result"}),
	}
	m.registry.MustRegister(m.webhooks, m.syncs, m.duration, m.success, m.good, m.rewrites, m.reloads,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gitgate_busy_repositories", Help: "Repositories that wait for an update or are being updated.",
		}, func() float64 { return float64(busy()) }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, result := range []string{"ok", "failed"} {
		m.reloads.WithLabelValues(result)
	}
	return m
}

// Webhook counts a request.
func (m *Meter) Webhook(repo string, code int) {
	m.webhooks.WithLabelValues(repo, strconv.Itoa(code)).Inc()
}

// Synced counts a try that took so long; result is changed, unchanged, or a
// reason, and ok tells which of the two it is.
func (m *Meter) Synced(repo, result string, ok bool, took time.Duration) {
	m.syncs.WithLabelValues(repo, result).Inc()
	m.duration.WithLabelValues(repo).Observe(took.Seconds())
	if !ok {
		m.good.WithLabelValues(repo).Set(0)
		return
	}
	m.good.WithLabelValues(repo).Set(1)
	m.success.WithLabelValues(repo).SetToCurrentTime()
}

// Rewritten counts an update to a history that was rewritten.
func (m *Meter) Rewritten(repo string) { m.rewrites.WithLabelValues(repo).Inc() }

// Gone forgets a repository.
func (m *Meter) Gone(repo string) {
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.webhooks, m.syncs, m.duration, m.success, m.good, m.rewrites} {
		v.DeletePartialMatch(prometheus.Labels{"repo": repo})
	}
}

// Reloaded counts a change of the configuration.
func (m *Meter) Reloaded(ok bool) {
	result := "ok"
	if !ok {
		result = "failed"
	}
	m.reloads.WithLabelValues(result).Inc()
}

// Handler serves the figures.
func (m *Meter) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}
