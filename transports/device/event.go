package device

import (
	"strconv"
	"time"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// Topics that every transport with devices has.
const (
	// EventsTopic is the topic of [Event] messages.
	EventsTopic = "events"
	// DataTopic is the topic of [Data] messages.
	DataTopic = "data"
)

// EventType is the type of an event.
type EventType string

// The types of events.
const (
	Connected    EventType = "connected"
	Disconnected EventType = "disconnected"
	// HostEvent is an event of the host itself. Its reason is one of the Host reasons.
	HostEvent EventType = "host"
)

// Reason is why a session ended, or what a host reports of itself.
type Reason string

// Why a session ended.
const (
	// ClientClosed means that the device closed the connection.
	ClientClosed Reason = "client_closed"
	// ConnectionLost means that the connection broke, or that the kernel took nothing for the
	// device in the write timeout.
	ConnectionLost Reason = "connection_lost"
	// IdleTimeout means that the device sent nothing in the idle timeout.
	IdleTimeout Reason = "idle_timeout"
	// Replaced means that a newer session of the device took over.
	Replaced Reason = "replaced"
	// Kicked means that the host ended the session: an operator asked for it, or the inventory no
	// longer lists the device. The event's detail says which.
	Kicked Reason = "kicked"
	// ProtocolError means that the device broke the framing or a documented limit.
	ProtocolError Reason = "protocol_error"
	// AuthError means that the device didn't prove its identity.
	AuthError Reason = "auth_error"
	// ServerShutdown means that the host stopped.
	ServerShutdown Reason = "server_shutdown"
	// NodeLost is never published. Consumers use it for the devices of a lost host.
	NodeLost Reason = "node_lost"
)

// What a host reports of itself.
const (
	HostStarted   Reason = "started"
	HostHeartbeat Reason = "heartbeat"
	HostStopped   Reason = "stopped"
)

// Event reports that a device or a host came online or went offline. A consumer should apply a
// device's event only if its (Epoch, Seq) is greater than the last that it applied.
type Event struct {
	EventID string    `json:"event_id"`
	Type    EventType `json:"type"`
	Device  string    `json:"device,omitempty"`
	// Online reports whether the device or host is online now.
	Online bool   `json:"online"`
	Reason Reason `json:"reason,omitempty"`
	// Detail says more about the reason, for people. An operator who disconnects a device may give
	// it.
	Detail     string `json:"detail,omitempty"`
	RemoteAddr string `json:"remote_addr,omitempty"`
	Host       string `json:"host"`
	// Generation is the number of one start of the host: the Unix milliseconds of the start. A
	// later start has a greater one.
	Generation uint64 `json:"generation"`
	// Epoch is the epoch of the device's session. A newer session has a greater one. It is less
	// than 2^53.
	Epoch uint64 `json:"epoch,omitempty"`
	// Seq counts from 1. It counts the events and data of one session, or the events of one start
	// of a host.
	Seq         uint64    `json:"seq"`
	ConnectedAt time.Time `json:"connected_at,omitzero"`
	Time        time.Time `json:"time"`
}

// AppendJSON appends the event's JSON to dst. It leaves out the fields of a device if the event is
// about a host.
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
	if e.Detail != "" {
		dst = append(dst, `,"detail":`...)
		dst = jsontext.AppendString(dst, e.Detail)
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
