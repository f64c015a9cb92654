package amqp

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts by topic, of which there are as many as the configuration names.
type metrics struct {
	published, confirmed, refused, undecided, unroutable *prometheus.CounterVec
	consumed, redelivered, acked                         *prometheus.CounterVec
	// connects counts by connection, consumer or publisher.
	connects *prometheus.CounterVec
	blocked  prometheus.Gauge
	// unsendable counts properties and headers that AMQP can't carry and that were left out or sent as headers.
	unsendable prometheus.Counter
	// unreadable counts messages that lost their headers on the way in.
	unreadable prometheus.Counter
	replies    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	var errs []error
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register(r, &errs, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pentrough_amqp_" + name, Help: help}, labels))
	}
	m := &metrics{
		published:   vec("published_total", "Messages written to the broker.", "topic"),
		confirmed:   vec("confirmed_total", "Messages that the broker confirmed, unroutable ones not counted.", "topic"),
		refused:     vec("refused_total", "Messages that the broker refused by a negative confirm.", "topic"),
		undecided:   vec("undecided_total", "Messages whose confirm didn't come in time or before the channel was lost.", "topic"),
		unroutable:  vec("unroutable_total", "Messages that the broker returned because no queue takes them.", "topic", "action"),
		consumed:    vec("consumed_total", "Messages handed out.", "topic"),
		redelivered: vec("redelivered_total", "Messages handed out that were delivered before.", "topic"),
		acked:       vec("acked_total", "Messages acked.", "topic"),
		connects:    vec("connects_total", "Connections made.", "connection"),
		replies:     vec("replies_total", "Copies of results for the reply_to of a message: sent, failed, dropped, or refused because of the queue that it names.", "outcome"),
		blocked: register(r, &errs, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pentrough_amqp_blocked", Help: "1 while the broker blocks publishing.",
		})),
		unsendable: register(r, &errs, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pentrough_amqp_unsendable_total", Help: "Properties and headers that AMQP can't carry as they are.",
		})),
		unreadable: register(r, &errs, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pentrough_amqp_unreadable_total", Help: "Messages handed out without their headers, which were nested too deep or too many.",
		})),
	}
	return m, errors.Join(errs...)
}

// register takes what an earlier instance under the same name left, so that a transport can be built again.
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

// topicCounters are a topic's own, looked up once.
type topicCounters struct {
	published, confirmed, refused, undecided, retried, dropped prometheus.Counter
	consumed, redelivered, acked                               prometheus.Counter
}

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
