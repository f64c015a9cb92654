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

// maxNumber is the limit of epochs, generations and counts, as in JSON.
const maxNumber = 1 << 53

// job has the statements for one message. The zero value has none.
type job struct {
	// at is the index of the message in its batch.
	at int
	// key is the device that the message is about, or "host " and the name of the host.
	key       string
	statement *database.Statement
	// kept is the statement for the history.
	kept *database.Statement
	// host is the state of a host as the message reports it.
	host *heard
}

// heard is the state of a host in a message: that it runs, or that it has stopped.
type heard struct {
	name string
	// generation and seq are the host's. A device's event has only the generation.
	generation, seq int64
	online          bool
	reason          string
	ofHost          bool // whether it is the host's own event
}

// Describe returns the device or host as the key, so that messages about one stay in order. It
// implements handlers.Describer.
func (h *handler) Describe(msg *message.Message) (handlers.Description, error) {
	j, err := h.readJob(msg)
	if err != nil {
		return handlers.Description{}, err
	}
	return handlers.Description{Key: j.key, Value: j}, nil
}

// jobFor returns the job that Describe made of a message, or makes it.
func (h *handler) jobFor(msg *message.Message) (job, error) {
	if j, ok := handlers.Described(msg.Context()).Value.(job); ok {
		return j, nil
	}
	return h.readJob(msg)
}

// readJob parses a message and makes its job.
func (h *handler) readJob(msg *message.Message) (job, error) {
	kind := msg.Metadata[transports.Type]
	body, err := transports.Body(msg)
	if err != nil {
		return job{}, fmt.Errorf("reading a message: %w", err)
	}
	j, err := h.readKind(kind, msg, body)
	if err == nil {
		j.kept, err = h.historyStatement(kind, body)
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
		return job{}, errors.New("the message has no type; allowed: event, result, data")
	default:
		return job{}, fmt.Errorf("a message has the type %q; allowed: event, result, data", kind)
	}
}

// readNamed makes the job of the user's statement.
func (h *handler) readNamed(kind string, msg *message.Message, payload []byte) (job, error) {
	if !slices.Contains(h.Types, kind) {
		return job{}, nil
	}
	var body map[string]json.RawMessage
	if err := jsontext.Unmarshal(payload, &body); err != nil {
		return job{}, fmt.Errorf("reading a message: %w", err)
	}
	key, _ := textOf(body["device"])
	s, err := h.named.bind(msg, body, h.db.Dialect())
	return job{key: key, statement: s}, err
}

func (h *handler) readEvent(body []byte) (job, error) {
	var e devices.Event
	if err := jsontext.Unmarshal(body, &e); err != nil {
		return job{}, fmt.Errorf("reading an event: %w", err)
	}
	isHost := e.Type == devices.HostEvent
	if err := errors.Join(
		requireKey("an event", "type", isHost || e.Type == devices.Connected || e.Type == devices.Disconnected),
		requireKey("an event", "host", e.Host != ""), requireKey("an event", "device", isHost || e.Device != ""), requireKey("an event", "time", !e.Time.IsZero()),
		requireKey("an event", "generation", e.Generation > 0 && e.Generation < maxNumber), requireKey("an event", "seq", e.Seq > 0 && e.Seq < maxNumber),
		requireKey("an event", "epoch", isHost || e.Epoch > 0 && e.Epoch < maxNumber),
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
		why = "" // an online device has no reason
	}
	return job{key: e.Device, host: sign, statement: h.statementFor(h.changes.event, values{
		device: e.Device, connected: up, online: up, reason: why, remoteAddr: e.RemoteAddr, host: e.Host, generation: int64(e.Generation),
		epoch: int64(e.Epoch), seq: int64(e.Seq), connectedAt: h.time(e.ConnectedAt), changedAt: h.time(e.Time), lastSeen: h.time(e.Time),
	})}, nil
}

func (h *handler) readResult(body []byte) (job, error) {
	r, err := devices.ParseResult(body)
	if err != nil {
		return job{}, err
	}
	if err := errors.Join(requireKey("a result", "id", r.ID != ""), requireKey("a result", "time", !r.Time.IsZero())); err != nil {
		return job{}, err
	}
	if r.Device == "" || !r.State.Terminal() {
		return job{}, nil
	}
	t := h.changes.result
	if r.Epoch == 0 {
		// The command had no session: perhaps the device doesn't exist.
		t = h.changes.resultOnly
	}
	return job{key: r.Device, statement: h.statementFor(t, values{device: r.Device, lastResultID: r.ID, lastResultState: string(r.State), lastResultAt: h.time(r.Time)})}, nil
}

func (h *handler) readData(body []byte) (job, error) {
	// The payload may be long, and has no column. So it isn't parsed.
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
		requireKey("data", "device", d.Device != ""), requireKey("data", "time", !d.Time.IsZero()),
		requireKey("data", "epoch", d.Epoch > 0 && d.Epoch < maxNumber), requireKey("data", "seq", d.Seq > 0 && d.Seq < maxNumber),
	); err != nil {
		return job{}, err
	}
	return job{key: d.Device, statement: h.statementFor(h.changes.data, values{
		device: d.Device, lastDataAt: h.time(d.Time), dataEpoch: int64(d.Epoch), dataSeq: int64(d.Seq), lastSeen: h.time(d.Time),
	})}, nil
}

func requireKey(what, key string, good bool) error {
	if good {
		return nil
	}
	return fmt.Errorf("reading %s: %q is missing or invalid", what, key)
}

func (h *handler) statementFor(t *template, v values) *database.Statement {
	if t == nil {
		return nil
	}
	s := t.bind(v)
	return &s
}

// time returns a time as an argument of a statement, or nil for the zero time.
func (h *handler) time(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return h.db.Dialect().Time(t)
}
