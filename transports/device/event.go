package device

import (
	"strconv"
	"time"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// Topics that every transport of devices offers.
const (
	// EventsTopic is the stream of [Event].
	EventsTopic = "events"
	// DataTopic is the stream of [Data].
	DataTopic = "data"
)

// EventType is what an event tells of.
type EventType string

// The types of events.
const (
	Connected    EventType = "connected"
	Disconnected EventType = "disconnected"
	// HostEvent tells of the host that holds the devices; its reason is one of the Host reasons.
	HostEvent EventType = "host"
)

// Reason is why something came about.
type Reason string

// Why a session ended.
const (
	// ClientClosed: the device closed the connection.
	ClientClosed Reason = "client_closed"
	// ConnectionLost: the connection broke, or the device took nothing for the write timeout.
	ConnectionLost Reason = "connection_lost"
	// IdleTimeout: nothing came from the device for the idle timeout.
	IdleTimeout Reason = "idle_timeout"
	// Replaced: a newer session of the device took over.
	Replaced Reason = "replaced"
	// Kicked: somebody at this end asked for it.
	Kicked Reason = "kicked"
	// ProtocolError: the device broke the framing or a documented limit.
	ProtocolError Reason = "protocol_error"
	// AuthError: the device didn't prove who it is.
	AuthError Reason = "auth_error"
	// ServerShutdown: this host stopped.
	ServerShutdown Reason = "server_shutdown"
	// NodeLost is set by consumers, when a host is silent.
	NodeLost Reason = "node_lost"
)

// What a host says of itself.
const (
	HostStarted   Reason = "started"
	HostHeartbeat Reason = "heartbeat"
	HostStopped   Reason = "stopped"
)

// Event is a change of presence. Apply a device's event only if its (Epoch, Seq) is greater than what you have.
type Event struct {
	EventID string    `json:"event_id"`
	Type    EventType `json:"type"`
	Device  string    `json:"device,omitempty"`
	// Online says whether the device, or the host, is there now.
	Online     bool   `json:"online"`
	Reason     Reason `json:"reason,omitempty"`
	RemoteAddr string `json:"remote_addr,omitempty"`
	Host       string `json:"host"`
	// Generation grows with each start of the host (Unix milliseconds of the start).
	Generation uint64 `json:"generation"`
	// Epoch numbers the device's sessions; a newer session has a greater one. Under 2^53.
	Epoch uint64 `json:"epoch,omitempty"`
	// Seq counts the events and data of one session, or the events of one generation of a host, from 1.
	Seq         uint64    `json:"seq"`
	ConnectedAt time.Time `json:"connected_at,omitzero"`
	Time        time.Time `json:"time"`
}

// AppendJSON appends the event's JSON to dst. The fields that belong to a device are left out for a host.
func (e Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"event_id":`...)
	dst = jsontext.AppendString(dst, e.EventID)
	dst = append(dst, `,"type":`...)
	dst = jsontext.AppendString(dst, string(e.Type))
	if e.Device != "" {
		dst = append(dst, `,"device":`...)
		dst = jsontext.AppendString(dst, e.Device)
	}
	dst = append(dst, `,"online":`...)
	dst = strconv.AppendBool(dst, e.Online)
	if e.Reason != "" {
		dst = append(dst, `,"reason":`...)
		dst = jsontext.AppendString(dst, string(e.Reason))
	}
	if e.RemoteAddr != "" {
		dst = append(dst, `,"remote_addr":`...)
		dst = jsontext.AppendString(dst, e.RemoteAddr)
	}
	dst = append(dst, `,"host":`...)
	dst = jsontext.AppendString(dst, e.Host)
	dst = append(dst, `,"generation":`...)
	dst = strconv.AppendUint(dst, e.Generation, 10)
	if e.Epoch != 0 {
		dst = append(dst, `,"epoch":`...)
		dst = strconv.AppendUint(dst, e.Epoch, 10)
	}
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, e.Seq, 10)
	if !e.ConnectedAt.IsZero() {
		dst = append(dst, `,"connected_at":"`...)
		dst = e.ConnectedAt.UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, `"}`...)
}
