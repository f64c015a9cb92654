// Package recording reads and writes recordings: files with what passed through one connection of
// a device, with the times.
//
// A recording is lines of JSON. The first line is about the connection, each further line has
// bytes that one side sent, and the last line says why the connection ended:
//
//	{"time":"2026-01-02T03:04:05.1Z","device":"d-1","host":"gw","transport":"devices","remote_addr":"10.0.0.7:4711",...}
//	{"time":"2026-01-02T03:04:05.2Z","from":"device","bytes":"68690a","text":"hi\n"}
//	{"time":"2026-01-02T03:04:05.3Z","from":"host","bytes":"6f6b0a","text":"ok\n"}
//	{"time":"2026-01-02T03:04:09.0Z","ended":"client_closed"}
//
// The admin listener writes them with [LineOf] and [Error]. Read them with [NewReader].
package recording

import (
	"encoding/hex"
	"time"
	"unicode/utf8"

	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports/device"
)

// The values of [Line.From].
const (
	FromDevice = "device"
	FromHost   = "host"
)

// Line is one line of a recording.
type Line struct {
	// Time is when the connection was accepted, or when the host read or wrote the bytes.
	Time time.Time `json:"time,omitzero"`

	// The first line has Connection.
	*Connection

	// From says who sent Bytes.
	From string `json:"from,omitempty"`
	// Bytes is written in hexadecimal digits. If the bytes are printable text, Text shows them to
	// people.
	Bytes Hex    `json:"bytes,omitempty"`
	Text  string `json:"text,omitempty"`

	// Ended is why the session ended, as in its event disconnected.
	Ended string `json:"ended,omitempty"`
	// Error is why the recording ended before the connection.
	Error string `json:"error,omitempty"`
}

// Connection describes the connection of a recording.
type Connection struct {
	Device     string `json:"device"`
	Host       string `json:"host"`
	Transport  string `json:"transport"`
	RemoteAddr string `json:"remote_addr"`
	Epoch      uint64 `json:"epoch"`
	// Protocol and Framing are the names in the transport's table. A name that the table doesn't
	// have is empty.
	Protocol string `json:"protocol,omitempty"`
	Framing  string `json:"framing,omitempty"`
	// Whole says that the recording begins with the connection's first bytes.
	Whole bool `json:"whole"`
}

// Hex is bytes that are hexadecimal digits in JSON.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

// LineOf returns the line for an entry of a recording. about has the fields of the connection that
// the entry doesn't have: Host, Transport, Protocol and Framing.
func LineOf(e device.Recorded, about Connection) Line {
	l := Line{Time: e.Time.UTC(), Ended: string(e.Ended)}
	if c := e.Connection; c != nil {
		about.Device, about.RemoteAddr, about.Epoch, about.Whole = c.Device, c.RemoteAddr, c.Epoch, c.Whole
		l.Connection = &about
	}
	if len(e.Bytes) > 0 {
		l.From, l.Bytes, l.Text = FromDevice, e.Bytes, text(e.Bytes)
		if e.FromHost {
			l.From = FromHost
		}
	}
	return l
}

// text returns bytes as text if all characters are printable, line breaks or tabs. Otherwise it
// returns "".
func text(b []byte) string {
	if !utf8.Valid(b) {
		return ""
	}
	for _, r := range string(b) {
		if !printable.Rune(r) && r != '\n' && r != '\r' && r != '\t' {
			return ""
		}
	}
	return string(b)
}
