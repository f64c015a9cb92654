package tcp

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what the registry of devices doesn't see.
type metrics struct {
	accepted, framesIn, bytesIn, floods, partials prometheus.Counter
	refused, dials                                *prometheus.CounterVec
}

// The reasons why connections are refused.
const (
	refusedLimit       = "limit"
	refusedDisplaced   = "displaced"
	refusedAuth        = "auth_error"
	refusedTurn        = "turn"
	refusedName        = "new-name"
	refusedBanned      = "banned"
	refusedHeader      = "proxy-header"
	refusedHandshake   = "handshake"
	refusedCertificate = "certificate"
	refusedToken       = "token"
	refusedAuthServer  = "auth-server"

	refusedUnknown = "unknown-device"
)

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "pentrough", Subsystem: "tcp", Name: name, Help: help})
	}
	m := &metrics{
		accepted: counter("accepted_total", "Connections that were accepted."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "pentrough", Subsystem: "tcp", Name: "refused_total",
			Help: "Accepted connections that the host closed, by reason: not-allowed (not in allow_from), address-banned, address-rate and address-connections (more than per_address allows), proxy-header (a wrong, late or forbidden PROXY header), limit (too many connections), displaced (by a newer connection), auth_error (no valid first frame), handshake (no valid TLS handshake), certificate (a device's certificate that is missing, wrong, or of another name), unknown-device (not in the inventory), token (a token that is missing or wrong), auth-server (the auth server didn't decide), new-name (more new names than new_names allows), banned (the device, by an operator), or turn (too many connections of one device).",
		}, []string{"reason"}),
		dials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "pentrough", Subsystem: "tcp", Name: "dials_total",
			Help: "Attempts to connect to devices of connect, by outcome: connected (a session has begun), timeout, unreachable, or why the connection didn't become a session, as in pentrough_tcp_refused_total.",
		}, []string{"outcome"}),
		framesIn: counter("frames_in_total", "Frames that devices sent."),
		bytesIn:  counter("bytes_in_total", "Bytes that devices sent."),
		partials: counter("partial_frames_total", "Connections that ended in the middle of a frame."),
		floods:   counter("floods_total", "Times that a device reached max_frame_rate or max_byte_rate."),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.accepted, m.refused, m.dials, m.framesIn, m.bytesIn, m.floods, m.partials} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of connections: %w", err)
		}
	}
	return m, nil
}
