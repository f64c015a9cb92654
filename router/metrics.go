package router

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/transports"
)

// metrics are counted by pipeline; their only label is the pipeline's name.
type metrics struct {
	received, acked, refused, errors, dropped, unavailable, abandoned, published, publishRetries *prometheus.CounterVec
	waiting, running, paused, held                                                               *prometheus.GaugeVec
	duration, settled                                                                            *prometheus.HistogramVec
}

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
		received:       counter("received", "Messages that the source handed to the pipeline."),
		acked:          counter("acked", "Messages that were acked, everything they produced being confirmed."),
		refused:        counter("refused", "Messages that were answered out of turn because their key stood still."),
		errors:         counter("errors", "Permanent and retryable errors that ended a message's way."),
		dropped:        counter("dropped", "Messages that were settled without outputs because of an error."),
		unavailable:    counter("unavailable", "Runs that ended because something the handler needs was down."),
		abandoned:      counter("abandoned", "Messages that had begun and weren't delivered again; their results were published without them."),
		published:      counter("published", "Produced messages that were confirmed."),
		publishRetries: counter("publish_retries", "Publishes that were tried again."),
		waiting:        gauge("waiting", "Messages that wait for their turn."),
		running:        gauge("running", "Messages that are being handled or wait for confirms."),
		paused:         gauge("paused", "1 while the pipeline is paused because something it needs is down."),
		held:           gauge("held", "Messages that the ledger owns until their device is there."),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pentrough_pipeline_handle_seconds",
			Help:    "Time in the chain of middleware and handler.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 30},
		}, label),
		settled: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pentrough_pipeline_settle_seconds",
			Help:    "Time from a message's arrival until it is settled, everything it produced being confirmed.",
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

// registerMemory registers the gauges of the budgets.
func registerMemory(r prometheus.Registerer, memory transports.Memory) error {
	for name, b := range map[string]*transports.Budget{
		"bodies": memory.Bodies, "in_flight": memory.InFlight, "waiting": memory.Waiting, "held": memory.Held,
	} {
		label := prometheus.Labels{"budget": name}
		for _, g := range []prometheus.Collector{
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "pentrough_budget_used_bytes", Help: "Bytes in memory by the budget that bounds them.", ConstLabels: label,
			}, func() float64 { return float64(b.Used()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "pentrough_budget_limit_bytes", Help: "What [host] memory allows; 0 is no limit.", ConstLabels: label,
			}, func() float64 { return float64(b.Limit()) }),
		} {
			if err := r.Register(g); err != nil {
				return err
			}
		}
	}
	return nil
}

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
