package device

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what a registry does. No label names a device, so the number of series is bounded.
type metrics struct {
	live   prometheus.Gauge
	ended  *prometheus.CounterVec
	full   prometheus.Counter
	frames *prometheus.CounterVec
	fates  [Rejected + 1]prometheus.Counter
	bytes  prometheus.Counter
	// unattached counts frames whose device can't be attached.
	unattached *prometheus.CounterVec
	coalesced  prometheus.Counter
	lost       *prometheus.CounterVec
	lostEvent  prometheus.Counter
	lostData   prometheus.Counter
}

// newMetrics registers the metrics. bans returns how many devices are banned.
func newMetrics(r prometheus.Registerer, bans func() int) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "pentrough", Subsystem: "device", Name: name, Help: help})
	}
	vector := func(name, label, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "pentrough", Subsystem: "device", Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		live:       prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "pentrough", Subsystem: "device", Name: "sessions", Help: "Live sessions."}),
		ended:      vector("sessions_ended_total", "reason", "Sessions that ended."),
		full:       counter("busy_total", "Frames that were refused because the device's queue was full."),
		frames:     vector("frames_out_total", "fate", "Frames for devices, by how they ended."),
		bytes:      counter("bytes_out_total", "Bytes that the kernel took for devices."),
		unattached: vector("unattached_frames_total", "reason", "Frames that were dropped because they name a device that can't be attached to their connection, by reason: limit (identity.attach), unknown-device (not in the inventory), token (it needs a connection of its own for its token), new-name (more new names than new_names allows), banned, or host-stops."),
		coalesced:  counter("events_coalesced_total", "Events that were replaced by a newer one of the same device because a consumer was too slow."),
		lost:       vector("dropped_total", "topic", "Events and data that were dropped because a consumer was too slow."),
	}
	for fate, name := range map[Fate]string{Sent: "sent", Expired: "expired", Offline: "offline", Unknown: "unknown", Cancelled: "cancelled", Superseded: "superseded", Answered: "answered", NoReply: "no-reply", Rejected: "rejected"} {
		m.fates[fate] = m.frames.WithLabelValues(name)
	}
	m.lostEvent, m.lostData = m.lost.WithLabelValues(EventsTopic), m.lost.WithLabelValues(DataTopic)
	if r == nil {
		return m, nil
	}
	banned := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "pentrough", Subsystem: "device", Name: "bans", Help: "Devices that an operator has banned."}, func() float64 { return float64(bans()) })
	for _, c := range []prometheus.Collector{banned, m.live, m.ended, m.full, m.frames, m.bytes, m.unattached, m.coalesced, m.lost} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of devices: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) addSessions(change float64) { m.live.Add(change) }
func (m *metrics) countEnd(reason Reason)     { m.ended.WithLabelValues(string(reason)).Inc() }
func (m *metrics) countUnattached(why string) { m.unattached.WithLabelValues(why).Inc() }
func (m *metrics) countBusy()                 { m.full.Inc() }
func (m *metrics) countFate(f Fate)           { m.fates[f].Inc() }
func (m *metrics) countBytes(n int)           { m.bytes.Add(float64(n)) }
func (m *metrics) countDropped(n int)         { addCount(m.lostData, n) }

func (m *metrics) countEvents(coalesced, lost int) {
	addCount(m.coalesced, coalesced)
	addCount(m.lostEvent, lost)
}

func addCount(c prometheus.Counter, n int) {
	if n > 0 {
		c.Add(float64(n))
	}
}
