package serve

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
)

const (
	// largestID is the largest id of a request.
	largestID = 1<<53 - 1
	// startMaxLine is how long a line may be before the host has said how long.
	startMaxLine = 1 << 20
)

// hostHello is what the host says of itself.
type hostHello struct {
	Versions []int `json:"versions"`
	Host     struct {
		Name string `json:"name"`
	} `json:"host"`
	Pipeline string         `json:"pipeline"`
	Config   map[string]any `json:"config"`
	MaxLine  int            `json:"max_line"`
	LogLevel string         `json:"log_level"`
}

func (h hostHello) level() slog.Level {
	level := slog.LevelDebug
	_ = level.UnmarshalText([]byte(strings.ToUpper(h.LogLevel))) // what isn't known is debug
	return level
}

// config is the config as a TOML file would have given it.
func (h hostHello) config() map[string]any {
	m, _ := plain(h.Config).(map[string]any)
	return m
}

func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		if f, err := v.Float64(); err == nil && !math.IsInf(f, 0) {
			return f
		}
		return v.String()
	case map[string]any:
		for key, e := range v {
			v[key] = plain(e)
		}
	case []any:
		for i, e := range v {
			v[i] = plain(e)
		}
	}
	return v
}

// line is one of the host.
type line struct {
	kind  string
	hello hostHello
	// id is that of a request, cancel or ping; remaining is in milliseconds.
	id, remaining int64
	msg           *message.Message
}

// parse reads a line. One of an unknown kind has that and nothing else.
func parse(text []byte) (l line, err error) {
	if !utf8.Valid(text) {
		return l, errors.New("a line that isn't UTF-8")
	}
	s := scanner{text: text}
	var kind, id, remaining, msg []byte
	err = s.object(func(key []byte) error {
		value, err := s.value(0)
		switch string(key) {
		case "type":
			kind = value
		case "id":
			id = value
		case "remaining_ms":
			remaining = value
		case "message":
			msg = value
		}
		return err
	})
	if err != nil {
		return l, err
	}
	if s.next() != 0 || s.at != len(text) {
		return l, errJSON
	}
	word, err := (&scanner{text: kind}).str()
	if err != nil {
		return l, errors.New("a line without a type")
	}
	switch string(word) {
	case "request":
		l.kind = "request"
		if l.remaining, err = whole("remaining_ms", remaining); err == nil {
			l.msg, err = parseMessage(msg)
		}
	case "cancel", "ping":
		l.kind = string(word)
	case "drain":
		l.kind = "drain"
		return l, nil
	case "hello":
		l.kind = "hello"
		dec := json.NewDecoder(strings.NewReader(string(text)))
		dec.UseNumber()
		if err := dec.Decode(&l.hello); err != nil {
			return l, fmt.Errorf("the host's hello: %w", err)
		}
		return l, nil
	default:
		return l, nil
	}
	if err == nil {
		l.id, err = whole("id", id)
	}
	if err == nil && (l.id < 1 || l.id > largestID) {
		err = fmt.Errorf("the id %d", l.id)
	}
	if err != nil {
		return l, fmt.Errorf("a %s: %w", l.kind, err)
	}
	return l, nil
}

func parseMessage(text []byte) (*message.Message, error) {
	s := scanner{text: text}
	var id string
	var plain, coded []byte
	var metadata message.Metadata
	err := s.object(func(key []byte) error {
		var err error
		switch string(key) {
		case "id":
			id, err = s.stringValue()
		case "payload":
			plain, err = s.str()
		case "payload_b64":
			coded, err = s.str()
		case "metadata":
			metadata = make(message.Metadata, 8)
			err = s.object(func(key []byte) error {
				k := string(key)
				v, err := s.stringValue()
				metadata[k] = v
				return err
			})
		default:
			_, err = s.value(0)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("its message: %w", err)
	}
	if plain != nil && coded != nil {
		return nil, errors.New("its message has two payloads")
	}
	data := append([]byte(nil), plain...)
	if coded != nil {
		if data, err = base64.StdEncoding.Strict().DecodeString(string(coded)); err != nil {
			return nil, fmt.Errorf("its message's payload: %w", err)
		}
	}
	msg := message.NewMessage(id, data)
	if metadata != nil {
		msg.Metadata = metadata
	}
	return msg, nil
}

// appendText appends a JSON string. What isn't UTF-8 in it is replaced.
func appendText(b []byte, text string) []byte {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\ufffd")
	}
	return appendValid(b, []byte(text))
}

// appendValid appends a JSON string of valid UTF-8.
func appendValid(b, text []byte) []byte {
	b = append(b, '"')
	for {
		n := clean(text)
		b = append(b, text[:n]...)
		if text = text[n:]; len(text) == 0 {
			return append(b, '"')
		}
		switch c := text[0]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		text = text[1:]
	}
}

// appendMessage appends a produced message.
func appendMessage(b []byte, m *message.Message) []byte {
	b = append(b, '{')
	if m.UUID != "" {
		b = append(appendText(append(b, `"id":`...), m.UUID), ',')
	}
	if utf8.Valid(m.Payload) {
		b = appendValid(append(b, `"payload":`...), m.Payload)
	} else {
		b = append(b, `"payload_b64":"`...)
		b = append(base64.StdEncoding.AppendEncode(b, m.Payload), '"')
	}
	if len(m.Metadata) > 0 {
		b = append(b, `,"metadata":{`...)
		for key, value := range m.Metadata {
			b = append(appendText(b, key), ':')
			b = append(appendText(b, value), ',')
		}
		b[len(b)-1] = '}'
	}
	if to := handlers.Destination(m); to != "" {
		b = appendText(append(b, `,"to":`...), string(to))
	}
	return append(b, '}')
}

// appendResponse appends a line with what became of a request. It reads the messages, and panics for one that is nil.
func appendResponse(b []byte, id int64, produced []*message.Message, failure error) []byte {
	b = strconv.AppendInt(append(b, `{"type":"response","id":`...), id, 10)
	switch {
	case failure != nil:
		b = append(append(b, `,"error":{"kind":"`...), handlers.KindOf(failure).String()...)
		b = appendText(append(b, `","text":`...), failure.Error())
		if after := handlers.RetryAfterOf(failure); after > 0 {
			b = strconv.AppendInt(append(b, `,"retry_after_ms":`...), max(1, after.Milliseconds()), 10)
		}
		b = append(b, '}')
	case len(produced) > 0:
		b = append(b, `,"messages":[`...)
		for _, m := range produced {
			b = append(appendMessage(b, m), ',')
		}
		b[len(b)-1] = ']'
	}
	return append(b, '}', '\n')
}

// pluginHello, refusal and bare are lines of the plugin that are written once in its life.
type pluginHello struct {
	Type          string   `json:"type"`
	Version       int      `json:"version"`
	Name          string   `json:"name"`
	PluginVersion string   `json:"plugin_version,omitempty"`
	Features      []string `json:"features"`
	Schema        any      `json:"schema"`
}

type problem struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

type refusal struct {
	Type     string    `json:"type"`
	Text     string    `json:"text,omitempty"`
	Problems []problem `json:"problems,omitempty"`
}

type bare struct {
	Type string `json:"type"`
}
