package device

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// Data is the JSON of one frame that a device sent.
type Data struct {
	DataID string `json:"data_id"`
	Device string `json:"device"`
	Host   string `json:"host"`
	Epoch  uint64 `json:"epoch"`
	// Seq counts the events and data of one session, from 1. A gap means that data was dropped.
	Seq uint64 `json:"seq"`
	// Encoding is Text if the frame is UTF-8, and Base64 otherwise.
	Encoding Encoding `json:"encoding"`
	Payload  string   `json:"payload"`
	// Kind is the type of the frame, if the protocol of the devices gives frames a type.
	Kind string `json:"kind,omitempty"`
	// Partial means that the frame's end never came, because the connection ended.
	Partial bool `json:"partial,omitempty"`
	// LateFor is the id of the command whose request this frame answers after the timeout. For a
	// request that any frame answers, this is a guess.
	LateFor string    `json:"late_for,omitempty"`
	Time    time.Time `json:"time"`
}

// SetBytes stores the frame's bytes in Encoding and Payload.
func (d *Data) SetBytes(frame string) {
	if utf8.ValidString(frame) {
		d.Encoding, d.Payload = Text, frame
		return
	}
	d.Encoding, d.Payload = Base64, base64.StdEncoding.EncodeToString([]byte(frame))
}

// Bytes returns the frame's bytes.
func (d Data) Bytes() ([]byte, error) {
	switch d.Encoding {
	case Text:
		return []byte(d.Payload), nil
	case Base64:
		b, err := base64.StdEncoding.DecodeString(d.Payload)
		if err != nil {
			return nil, fmt.Errorf("decoding the payload of data %s: %w", d.DataID, err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("decoding the payload of data %s: the encoding %q is neither %s nor %s", d.DataID, d.Encoding, Text, Base64)
}

// AppendJSON appends the data's JSON to dst.
func (d Data) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"data_id":`...)
	dst = jsontext.AppendString(dst, d.DataID)
	dst = append(dst, `,"device":`...)
	dst = jsontext.AppendString(dst, d.Device)
	dst = append(dst, `,"host":`...)
	dst = jsontext.AppendString(dst, d.Host)
	dst = append(dst, `,"epoch":`...)
	dst = strconv.AppendUint(dst, d.Epoch, 10)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, d.Seq, 10)
	dst = append(dst, `,"encoding":`...)
	dst = jsontext.AppendString(dst, string(d.Encoding))
	dst = append(dst, `,"payload":`...)
	dst = jsontext.AppendString(dst, d.Payload)
	if d.Kind != "" {
		dst = append(dst, `,"kind":`...)
		dst = jsontext.AppendString(dst, d.Kind)
	}
	if d.Partial {
		dst = append(dst, `,"partial":true`...)
	}
	if d.LateFor != "" {
		dst = append(dst, `,"late_for":`...)
		dst = jsontext.AppendString(dst, d.LateFor)
	}
	dst = append(dst, `,"time":"`...)
	dst = d.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, `"}`...)
}
