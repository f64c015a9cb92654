package circuitbreaker

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct{ opened, refused prometheus.Counter }

func newMetrics() metrics {
	return metrics{
		opened:  prometheus.NewCounter(prometheus.CounterOpts{Name: "pentrough_circuit_breaker_opened_total", Help: "Breakers that opened since messages of their key kept failing."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "pentrough_circuit_breaker_refused_total", Help: "Messages that were refused without trying, since the breaker of their key was open."}),
	}
}

func (m metrics) register(r prometheus.Registerer, c *circuits) error {
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pentrough_circuit_breaker_open", Help: "Keys whose breaker is open, or waits for a probe that succeeds.",
	}, func() float64 { return float64(c.countOpen()) })
	return errors.Join(r.Register(m.opened), r.Register(m.refused), r.Register(open))
}
