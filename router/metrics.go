package router

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/transports"
)

// metrics has the metrics of all pipelines. Their only label is the pipeline's name.
type metrics struct {
	received, acked, refused, errors, dropped, unavailable, abandoned, published, publishRetries *prometheus.CounterVec
	waiting, running, paused, held                                                               *prometheus.GaugeVec
	duration, settled                                                                            *prometheus.HistogramVec
}

// pipelineMetrics has the metrics of one pipeline.
type pipelineMetrics struct {
	received, acked, refused, errors, dropped, unavailable, abandoned, published, publishRetries prometheus.Counter
	waiting, running, paused, held                                                               prometheus.Gauge
	duration, settled                                                                            prometheus.Observer
}

func newMetrics(r prometheus.Registerer, memory transports.Memory) (*metrics, error) {
	label := []string{"pipeline"}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pentrough_pipeline_" + name + "_total", Help: help}, label)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "pentrough_pipeline_" + name, Help: help}, label)
	}
	m := &metrics{
		received:       counter("received", "Messages that the source delivered to the pipeline."),
		acked:          counter("acked", "Messages that were acked after all their outputs were confirmed."),
		refused:        counter("refused", "Messages that were refused, because their key was stalled or their ack deadline was over."),
		errors:         counter("errors", "Messages that ended with a permanent or retryable error."),
		dropped:        counter("dropped", "Messages that were settled without outputs because of an error, and outputs that can never be sent."),
		unavailable:    counter("unavailable", "Runs that ended because something that the handler needs was down."),
		abandoned:      counter("abandoned", "Messages that had begun and weren't redelivered; their results were published from the ledger."),
		published:      counter("published", "Outputs that were confirmed."),
		publishRetries: counter("publish_retries", "Failed attempts to publish, which are repeated."),
		waiting:        gauge("waiting", "Messages that wait for their turn."),
		running:        gauge("running", "Messages that are being handled, or whose outputs wait for their confirms."),
		paused:         gauge("paused", "1 while the pipeline is paused because something that it needs is down, otherwise 0."),
		held:           gauge("held", "Messages that wait in the ledger until their device connects."),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pentrough_pipeline_handle_seconds",
			Help:    "Time that a run takes in middleware and handler.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 30},
		}, label),
		settled: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pentrough_pipeline_settle_seconds",
			Help:    "Time from a message's arrival until all its outputs are confirmed and it is acked.",
			Buckets: []float64{.0005, .001, .005, .01, .05, .1, .5, 1, 5, 30, 120, 600},
		}, label),
	}
	for _, c := range []prometheus.Collector{
		m.received, m.acked, m.refused, m.errors, m.dropped, m.unavailable, m.abandoned, m.published, m.publishRetries,
		m.waiting, m.running, m.paused, m.held, m.duration, m.settled,
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, registerMemory(r, memory)
}

// registerMemory registers the gauges of the memory budgets.
func registerMemory(r prometheus.Registerer, memory transports.Memory) error {
	for name, b := range map[string]*transports.Budget{
		"bodies": memory.Bodies, "in_flight": memory.InFlight, "waiting": memory.Waiting, "held": memory.Held,
	} {
		label := prometheus.Labels{"budget": name}
		for _, g := range []prometheus.Collector{
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "pentrough_budget_used_bytes", Help: "Bytes in memory that the budget bounds.", ConstLabels: label,
			}, func() float64 { return float64(b.Used()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "pentrough_budget_limit_bytes", Help: "Limit of the budget, as memory in [host] sets it; 0 means no limit.", ConstLabels: label,
			}, func() float64 { return float64(b.Limit()) }),
		} {
			if err := r.Register(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// pipeline returns the metrics of a pipeline.
func (m *metrics) pipeline(name string) *pipelineMetrics {
	return &pipelineMetrics{
		received:       m.received.WithLabelValues(name),
		acked:          m.acked.WithLabelValues(name),
		refused:        m.refused.WithLabelValues(name),
		errors:         m.errors.WithLabelValues(name),
		dropped:        m.dropped.WithLabelValues(name),
		unavailable:    m.unavailable.WithLabelValues(name),
		abandoned:      m.abandoned.WithLabelValues(name),
		published:      m.published.WithLabelValues(name),
		publishRetries: m.publishRetries.WithLabelValues(name),
		waiting:        m.waiting.WithLabelValues(name),
		running:        m.running.WithLabelValues(name),
		paused:         m.paused.WithLabelValues(name),
		held:           m.held.WithLabelValues(name),
		duration:       m.duration.WithLabelValues(name),
		settled:        m.settled.WithLabelValues(name),
	}
}
