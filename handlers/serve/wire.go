package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/internal/stdio"
)

// hostHello is the host's hello.
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
	// An unknown level counts as debug.
	_ = level.UnmarshalText([]byte(strings.ToUpper(h.LogLevel)))
	return level
}

// config returns the config with the types that a TOML file would give.
func (h hostHello) config() map[string]any {
	m, _ := toTOML(h.Config).(map[string]any)
	return m
}

func toTOML(v any) any {
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
			v[key] = toTOML(e)
		}
	case []any:
		for i, e := range v {
			v[i] = toTOML(e)
		}
	}
	return v
}

// line is a line from the host.
type line struct {
	kind  string
	hello hostHello
	// id is the id of a request, cancel or ping. remaining is in milliseconds.
	id, remaining int64
	msg           *message.Message
}

// parseLine parses a line. For an unknown type it returns a line without a kind.
func parseLine(text []byte) (l line, err error) {
	s := jsontext.New(text)
	var kind, id, remaining, msg jsontext.Token[[]byte]
	for s.Begin('{'); s.Next(); {
		key, value := s.Key(), s.Value()
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
	}
	if err := s.Finish(); err != nil {
		return l, fmt.Errorf("a line that isn't a JSON object: %w", err)
	}
	word, _ := kind.Text() // Finish has checked it
	if kind.Kind != '"' {
		return l, errors.New("a line without a type")
	}
	switch string(word) {
	case "request":
		l.kind = "request"
		if l.remaining, err = stdio.ParseWhole("remaining_ms", remaining); err == nil {
			inner := jsontext.New(msg.Raw)
			l.msg, _, err = stdio.ParseMessage(&inner)
		}
	case "cancel", "ping":
		l.kind = string(word)
	case "drain":
		l.kind = "drain"
		return l, nil
	case "hello":
		l.kind = "hello"
		if err := jsontext.Unmarshal(text, &l.hello); err != nil {
			return l, fmt.Errorf("the host's hello: %w", err)
		}
		return l, nil
	default:
		return l, nil
	}
	if err == nil {
		l.id, err = stdio.ParseWhole("id", id)
	}
	if err == nil && (l.id < 1 || l.id > stdio.LargestID) {
		err = fmt.Errorf("the id %d", l.id)
	}
	if err != nil {
		return l, fmt.Errorf("a %s: %w", l.kind, err)
	}
	return l, nil
}

// appendResponse appends the response line of a request. It reads the messages, and panics if one
// is nil.
func appendResponse(b []byte, id int64, produced []*message.Message, failure error) []byte {
	b = strconv.AppendInt(append(b, `{"type":"response","id":`...), id, 10)
	switch {
	case failure != nil:
		b = append(append(b, `,"error":{"kind":"`...), handlers.KindOf(failure).String()...)
		b = jsontext.AppendString(append(b, `","text":`...), failure.Error())
		if after := handlers.RetryAfterOf(failure); after > 0 {
			b = strconv.AppendInt(append(b, `,"retry_after_ms":`...), max(1, after.Milliseconds()), 10)
		}
		b = append(b, '}')
	case len(produced) > 0:
		b = append(b, `,"messages":[`...)
		for _, m := range produced {
			b = append(stdio.AppendMessage(b, m, string(handlers.Destination(m))), ',')
		}
		b[len(b)-1] = ']'
	}
	return append(b, '}', '\n')
}

// pluginHello, refusal and bare are lines that the plugin writes once.
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
