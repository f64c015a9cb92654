package amqp

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics has the counters of a transport. Most count by topic, and the configuration bounds the
// number of topics.
type metrics struct {
	published, confirmed, refused, undecided, unroutable *prometheus.CounterVec
	consumed, redelivered, acked                         *prometheus.CounterVec
	// connects counts by connection: consumer or publisher.
	connects *prometheus.CounterVec
	blocked  prometheus.Gauge
	// unsendable counts properties and headers that AMQP can't carry. The host left them out or
	// sent them as headers.
	unsendable prometheus.Counter
	// unreadable counts messages whose headers the host dropped, because the library can't read
	// them.
	unreadable prometheus.Counter
	replies    *prometheus.CounterVec
}

// newMetrics registers the metrics.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	var errs []error
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register(r, &errs, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pentrough_amqp_" + name, Help: help}, labels))
	}
	m := &metrics{
		published:   vec("published_total", "Messages written to the broker.", "topic"),
		confirmed:   vec("confirmed_total", "Messages that the broker confirmed, without unroutable ones.", "topic"),
		refused:     vec("refused_total", "Messages that the broker refused by a negative confirm.", "topic"),
		undecided:   vec("undecided_total", "Messages without a confirm within publish_timeout or before the loss of the channel.", "topic"),
		unroutable:  vec("unroutable_total", "Messages that the broker returned because they are routed to no queue.", "topic", "action"),
		consumed:    vec("consumed_total", "Messages that the broker delivered to pipelines.", "topic"),
		redelivered: vec("redelivered_total", "Messages that the broker redelivered to pipelines.", "topic"),
		acked:       vec("acked_total", "Messages acked.", "topic"),
		connects:    vec("connects_total", "Connections made.", "connection"),
		replies:     vec("replies_total", "Copies of results for the reply_to of a message: sent, failed, dropped, or refused because reply_to names a queue that isn't allowed.", "outcome"),
		blocked: register(r, &errs, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pentrough_amqp_blocked", Help: "1 while the broker blocks publishing.",
		})),
		unsendable: register(r, &errs, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pentrough_amqp_unsendable_total", Help: "Properties and headers that AMQP can't carry as they are.",
		})),
		unreadable: register(r, &errs, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pentrough_amqp_unreadable_total", Help: "Messages delivered without their headers, because these were nested too deep or too many.",
		})),
	}
	return m, errors.Join(errs...)
}

// register registers a collector. If an earlier transport of the same name has registered an equal
// collector, register returns the earlier collector.
func register[C prometheus.Collector](r prometheus.Registerer, errs *[]error, c C) C {
	err := r.Register(c)
	if known, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, ok := known.ExistingCollector.(C); ok {
			return old
		}
	}
	if err != nil {
		*errs = append(*errs, err)
	}
	return c
}

// topicCounters are the counters of one topic.
type topicCounters struct {
	published, confirmed, refused, undecided, retried, dropped prometheus.Counter
	consumed, redelivered, acked                               prometheus.Counter
}

// topicCounters returns the counters of a topic.
func (m *metrics) topicCounters(name string) topicCounters {
	return topicCounters{
		published:   m.published.WithLabelValues(name),
		confirmed:   m.confirmed.WithLabelValues(name),
		refused:     m.refused.WithLabelValues(name),
		undecided:   m.undecided.WithLabelValues(name),
		retried:     m.unroutable.WithLabelValues(name, "retry"),
		dropped:     m.unroutable.WithLabelValues(name, "drop"),
		consumed:    m.consumed.WithLabelValues(name),
		redelivered: m.redelivered.WithLabelValues(name),
		acked:       m.acked.WithLabelValues(name),
	}
}
