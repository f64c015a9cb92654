package listen

import "github.com/prometheus/client_golang/prometheus"

var (
	connections = prometheus.NewDesc("pentrough_connections",
		"Open connections by state: unidentified, kept (the peer has identified itself), spare (the peer was served and waits for nothing).", []string{"state"}, nil)
	displaced = prometheus.NewDesc("pentrough_connections_displaced_total",
		"Connections that were closed for newer ones, because there were too many.", nil, nil)
)

// Describe implements prometheus.Collector.
func (g *Gate) Describe(descs chan<- *prometheus.Desc) { descs <- connections; descs <- displaced }

// Collect implements prometheus.Collector.
func (g *Gate) Collect(metrics chan<- prometheus.Metric) {
	s := g.State()
	for state, n := range map[string]int{"unidentified": s.Unidentified, "spare": s.Spare, "kept": s.Kept} {
		metrics <- prometheus.MustNewConstMetric(connections, prometheus.GaugeValue, float64(n), state)
	}
	metrics <- prometheus.MustNewConstMetric(displaced, prometheus.CounterValue, float64(s.Displaced))
}

// State counts the connections of a gate.
type State struct {
	Unidentified, Spare, Kept int
	// Displaced is how many connections the gate has closed for newer ones.
	Displaced int
}

// State returns the number of connections in each state.
func (g *Gate) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return State{g.unidentified.n, g.spare.n, g.open - g.unidentified.n - g.spare.n, g.displaced}
}
