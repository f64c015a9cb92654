package ledger

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// marshal makes JSON of outputs, and nothing of none.
func marshal(outputs []middleware.Output) ([]byte, error) {
	if outputs == nil {
		return nil, nil
	}
	return json.Marshal(outputs)
}

// held is a message as a store keeps it. What stands in the row's own columns isn't repeated.
type held struct {
	UUID     string            `json:"uuid"`
	Payload  []byte            `json:"payload"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Awaits   string            `json:"awaits"`
	Expires  time.Time         `json:"expires,omitzero"`
	Sets     string            `json:"sets,omitempty"`
}

// marshalHeld makes JSON of a message, and nothing of none.
func marshalHeld(h *handlers.Held) ([]byte, error) {
	if h == nil {
		return nil, nil
	}
	return json.Marshal(held{h.UUID, h.Payload, h.Metadata, h.Awaits, h.Expires, h.Sets})
}

// decode takes in what a store has as bytes. Its error says why nobody can use the row.
func (r *Row) decode(digest, outputs, message []byte) error {
	flawed := func(format string, args ...any) error {
		return fmt.Errorf("row %d, id %q of pipeline %s: %w", r.Number, r.Key.ID, r.Key.Pipeline, fmt.Errorf(format, args...))
	}
	if r.State < Writing || r.State > OnHold {
		return flawed("there is no state %d", int(r.State))
	}
	if copy(r.Digest[:], digest); len(digest) != len(r.Digest) {
		return flawed("its digest has %d bytes instead of %d", len(digest), len(r.Digest))
	}
	if outputs != nil {
		if err := json.Unmarshal(outputs, &r.Outputs); err != nil {
			return flawed("reading its outputs: %w", err)
		}
	}
	switch {
	case message == nil && r.State == OnHold:
		return flawed("it is held without its message")
	case message != nil:
		var h held
		if err := json.Unmarshal(message, &h); err != nil {
			return flawed("reading its message: %w", err)
		}
		r.Message = &handlers.Held{
			ID: r.Key.ID, Key: r.Key.Device, Order: r.Number, UUID: h.UUID, Payload: h.Payload, Metadata: h.Metadata, Awaits: h.Awaits, Expires: h.Expires, Sets: h.Sets,
		}
	}
	return nil
}
