package sql

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/transports"
	devices "github.com/pentrough/pentrough/transports/device"
)

// maxNumber bounds epochs, generations and counts, as their JSON does.
const maxNumber = 1 << 53

// job is what a message asks of the database; the zero value asks for nothing.
type job struct {
	// at is the message's place in its batch.
	at int
	// key is the device that the message is about, or the host with that word before it.
	key       string
	statement *database.Statement
	// kept is that of history.
	kept *database.Statement
	// host is what the message tells of a host.
	host *heard
}

// heard is a sign of life of a host, or of its end.
type heard struct {
	name string
	// generation and seq are those of the host; a device's event tells the generation only.
	generation, seq int64
	online          bool
	reason          string
	ofHost          bool
}

// Describe implements handlers.Describer: what tells of one device, or of one host, is in order.
func (h *handler) Describe(msg *message.Message) (handlers.Description, error) {
	j, err := h.read(msg)
	if err != nil {
		return handlers.Description{}, err
	}
	return handlers.Description{Key: j.key, Value: j}, nil
}

// asked is what a message asks for, as Describe found or finds.
func (h *handler) asked(msg *message.Message) (job, error) {
	if j, ok := handlers.Described(msg.Context()).Value.(job); ok {
		return j, nil
	}
	return h.read(msg)
}

// read finds out what a message asks for.
func (h *handler) read(msg *message.Message) (job, error) {
	kind := msg.Metadata[transports.Type]
	body, err := transports.Body(msg)
	if err != nil {
		return job{}, fmt.Errorf("reading a message: %w", err)
	}
	j, err := h.readKind(kind, msg, body)
	if err == nil {
		j.kept, err = h.keep(kind, body)
	}
	return j, err
}

func (h *handler) readKind(kind string, msg *message.Message, body []byte) (job, error) {
	if h.named != nil && bodies[kind] != nil {
		return h.readNamed(kind, msg, body)
	}
	switch kind {
	case devices.TypeEvent:
		return h.readEvent(body)
	case devices.TypeResult:
		return h.readResult(body)
	case devices.TypeData:
		return h.readData(body)
	case devices.TypeGroup:
		return job{}, nil
	case "":
		return job{}, errors.New("the message has no type: it is neither event, result nor data")
	default:
		return job{}, fmt.Errorf("a message of type %q is neither event, result nor data", kind)
	}
}

// readNamed is what the user's statement asks for.
func (h *handler) readNamed(kind string, msg *message.Message, payload []byte) (job, error) {
	if !slices.Contains(h.Types, kind) {
		return job{}, nil
	}
	var body map[string]json.RawMessage
	if err := jsontext.Unmarshal(payload, &body); err != nil {
		return job{}, fmt.Errorf("reading a message: %w", err)
	}
	key, _ := textOf(body["device"])
	s, err := h.named.of(msg, body, h.db.Dialect())
	return job{key: key, statement: s}, err
}

func (h *handler) readEvent(body []byte) (job, error) {
	var e devices.Event
	if err := jsontext.Unmarshal(body, &e); err != nil {
		return job{}, fmt.Errorf("reading an event: %w", err)
	}
	isHost := e.Type == devices.HostEvent
	if err := errors.Join(
		wants("an event", "type", isHost || e.Type == devices.Connected || e.Type == devices.Disconnected),
		wants("an event", "host", e.Host != ""), wants("an event", "device", isHost || e.Device != ""), wants("an event", "time", !e.Time.IsZero()),
		wants("an event", "generation", e.Generation > 0 && e.Generation < maxNumber), wants("an event", "seq", e.Seq > 0 && e.Seq < maxNumber),
		wants("an event", "epoch", isHost || e.Epoch > 0 && e.Epoch < maxNumber),
	); err != nil {
		return job{}, err
	}
	sign := &heard{name: e.Host, generation: int64(e.Generation)}
	if isHost {
		sign.seq, sign.ofHost, sign.reason, sign.online = int64(e.Seq), true, string(e.Reason), e.Reason != devices.HostStopped
		return job{key: "host " + e.Host, host: sign}, nil
	}
	up := e.Type == devices.Connected
	why := string(e.Reason)
	if up {
		why = "" // a reason belongs to an end
	}
	return job{key: e.Device, host: sign, statement: h.fill(h.changes.event, values{
		device: e.Device, connected: up, online: up, reason: why, remoteAddr: e.RemoteAddr, host: e.Host, generation: int64(e.Generation),
		epoch: int64(e.Epoch), seq: int64(e.Seq), connectedAt: h.time(e.ConnectedAt), changedAt: h.time(e.Time), lastSeen: h.time(e.Time),
	})}, nil
}

func (h *handler) readResult(body []byte) (job, error) {
	r, err := devices.ParseResult(body)
	if err != nil {
		return job{}, err
	}
	if err := errors.Join(wants("a result", "id", r.ID != ""), wants("a result", "time", !r.Time.IsZero())); err != nil {
		return job{}, err
	}
	if r.Device == "" || !r.State.Terminal() {
		return job{}, nil
	}
	t := h.changes.result
	if r.Epoch == 0 {
		// It had no session: perhaps there is no such device.
		t = h.changes.resultOnly
	}
	return job{key: r.Device, statement: h.fill(t, values{device: r.Device, lastResultID: r.ID, lastResultState: string(r.State), lastResultAt: h.time(r.Time)})}, nil
}

func (h *handler) readData(body []byte) (job, error) {
	// What the device said may be long, and has no column.
	var d struct {
		Device string    `json:"device"`
		Epoch  uint64    `json:"epoch"`
		Seq    uint64    `json:"seq"`
		Time   time.Time `json:"time"`
	}
	if err := jsontext.Unmarshal(body, &d); err != nil {
		return job{}, fmt.Errorf("reading data: %w", err)
	}
	if err := errors.Join(
		wants("data", "device", d.Device != ""), wants("data", "time", !d.Time.IsZero()),
		wants("data", "epoch", d.Epoch > 0 && d.Epoch < maxNumber), wants("data", "seq", d.Seq > 0 && d.Seq < maxNumber),
	); err != nil {
		return job{}, err
	}
	return job{key: d.Device, statement: h.fill(h.changes.data, values{
		device: d.Device, lastDataAt: h.time(d.Time), dataEpoch: int64(d.Epoch), dataSeq: int64(d.Seq), lastSeen: h.time(d.Time),
	})}, nil
}

func wants(what, key string, good bool) error {
	if good {
		return nil
	}
	return fmt.Errorf("reading %s: it has no good %q", what, key)
}

func (h *handler) fill(t *template, v values) *database.Statement {
	if t == nil {
		return nil
	}
	s := t.of(v)
	return &s
}

// time is an argument of a time; nil if there is none.
func (h *handler) time(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return h.db.Dialect().Time(t)
}
