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

// A store writes several rows for each command. So this file writes their JSON without
// allocations, and reads it with encoding/json.

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

// held is a held message as JSON. It leaves out the fields that are columns of the row.
type held struct {
	UUID     string            `json:"uuid"`
	Payload  []byte            `json:"payload"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Awaits   string            `json:"awaits"`
	Expires  time.Time         `json:"expires,omitzero"`
	Sets     string            `json:"sets,omitempty"`
}

// appendOrigin appends JSON of an origin.
func appendOrigin(dst []byte, o *middleware.Origin) []byte {
	dst = jsontext.AppendString(append(dst, `{"uuid":`...), o.UUID)
	for _, field := range [...]struct{ key, value string }{
		{`,"correlation_id":`, o.CorrelationID}, {`,"reply_to":`, o.ReplyTo}, {`,"traceparent":`, o.TraceParent}, {`,"tracestate":`, o.TraceState}, {`,"keep":`, o.Keep},
	} {
		if field.value != "" {
			dst = jsontext.AppendString(append(dst, field.key...), field.value)
		}
	}
	return append(dst, '}')
}

// appendHeld appends JSON of a message, with the fields of held. It returns an error if JSON can't
// express the time.
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

// parts are the columns of a row that are JSON. A column that the row doesn't have is nil.
type parts struct{ outputs, message, origin []byte }

// appendParts appends the JSON of a row's parts to buf. It returns the longer buffer and the
// parts, which are slices of it.
func (r *Row) appendParts(buf []byte) (grown []byte, p parts, err error) {
	start := len(buf)
	if r.Outputs != nil {
		buf = appendOutputs(buf, r.Outputs)
		p.outputs = buf[start:len(buf):len(buf)]
	}
	start = len(buf)
	if r.Message != nil {
		if buf, err = appendHeld(buf, r.Message); err != nil {
			return nil, parts{}, fmt.Errorf("making JSON of its message: %w", err)
		}
		p.message = buf[start:len(buf):len(buf)]
	}
	start = len(buf)
	if r.Origin.UUID != "" {
		buf = appendOrigin(buf, &r.Origin)
		p.origin = buf[start:len(buf):len(buf)]
	}
	return buf, p, nil
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

// decode fills in the digest and the parts of a row. The error says why the row can't be used.
func (r *Row) decode(digest []byte, p parts) error {
	flawed := func(format string, args ...any) error {
		return fmt.Errorf("row %d, id %q of pipeline %s: %w", r.Number, r.Key.ID, r.Key.Pipeline, fmt.Errorf(format, args...))
	}
	if r.State < Writing || r.State > Held {
		return flawed("there is no state %d", int(r.State))
	}
	if copy(r.Digest[:], digest); len(digest) != len(r.Digest) {
		return flawed("its digest has %d bytes instead of %d", len(digest), len(r.Digest))
	}
	if p.outputs != nil {
		if err := json.Unmarshal(p.outputs, &r.Outputs); err != nil {
			return flawed("reading its outputs: %w", err)
		}
	}
	if p.origin != nil {
		if err := json.Unmarshal(p.origin, &r.Origin); err != nil {
			return flawed("reading its origin: %w", err)
		}
	}
	switch {
	case p.message == nil && r.State == Held:
		return flawed("it is held without its message")
	case p.message != nil:
		var h held
		if err := json.Unmarshal(p.message, &h); err != nil {
			return flawed("reading its message: %w", err)
		}
		r.Message = &handlers.Held{
			ID: r.Key.ID, Key: r.Key.Device, Order: r.Number, UUID: h.UUID, Payload: h.Payload, Metadata: h.Metadata, Awaits: h.Awaits, Expires: h.Expires, Sets: h.Sets,
		}
		// Compact each row at once, since the payloads in the store can have much white space.
		compactPayload(r.Message)
	}
	return nil
}
