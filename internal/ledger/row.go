package ledger

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/router/middleware"
)

// A store writes some rows for each command, so that JSON is made here by hand, without garbage. It is read with encoding/json.

// appendOutputs appends JSON of outputs.
func appendOutputs(dst []byte, outputs []middleware.Output) []byte {
	dst = append(dst, '[')
	for i, o := range outputs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = jsontext.AppendString(append(dst, `{"UUID":`...), o.UUID)
		dst = appendTexts(append(dst, `,"Metadata":`...), o.Metadata)
		dst = appendBytes(append(dst, `,"Payload":`...), o.Payload)
		dst = jsontext.AppendString(append(dst, `,"Destination":`...), string(o.Destination))
		dst = append(dst, '}')
	}
	return append(dst, ']')
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

// appendHeld appends JSON of a message, as held has it. The error is that of a time which JSON can't have.
func appendHeld(dst []byte, h *handlers.Held) ([]byte, error) {
	dst = jsontext.AppendString(append(dst, `{"uuid":`...), h.UUID)
	dst = appendBytes(append(dst, `,"payload":`...), h.Payload)
	if len(h.Metadata) > 0 {
		dst = appendTexts(append(dst, `,"metadata":`...), h.Metadata)
	}
	dst = jsontext.AppendString(append(dst, `,"awaits":`...), h.Awaits)
	if !h.Expires.IsZero() {
		var err error
		if dst, err = h.Expires.AppendText(append(dst, `,"expires":"`...)); err != nil {
			return nil, err
		}
		dst = append(dst, '"')
	}
	if h.Sets != "" {
		dst = jsontext.AppendString(append(dst, `,"sets":`...), h.Sets)
	}
	return append(dst, '}'), nil
}

// encoded appends a row's outputs and message to buf, and returns buf with the two: nil of what the row doesn't have.
func (r *Row) encoded(buf []byte) (grown, outputs, message []byte, err error) {
	start := len(buf)
	if r.Outputs != nil {
		buf = appendOutputs(buf, r.Outputs)
		outputs = buf[start:len(buf):len(buf)]
	}
	start = len(buf)
	if r.Message != nil {
		if buf, err = appendHeld(buf, r.Message); err != nil {
			return nil, nil, nil, fmt.Errorf("making JSON of its message: %w", err)
		}
		message = buf[start:len(buf):len(buf)]
	}
	return buf, outputs, message, nil
}

func appendTexts(dst []byte, texts map[string]string) []byte {
	dst = append(dst, '{')
	first := true
	for k, v := range texts {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = jsontext.AppendString(append(jsontext.AppendString(dst, k), ':'), v)
	}
	return append(dst, '}')
}

func appendBytes(dst, b []byte) []byte {
	dst = append(dst, '"')
	return append(base64.StdEncoding.AppendEncode(dst, b), '"')
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
