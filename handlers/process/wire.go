package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/internal/stdio"
	"github.com/pentrough/pentrough/transports"
)

// leastMaxLine is the least that either side takes in a line.
const leastMaxLine = 64 << 10

// hostHello is what the host says of itself.
type hostHello struct {
	Type     string          `json:"type"`
	Versions []int           `json:"versions"`
	Host     hostName        `json:"host"`
	Pipeline string          `json:"pipeline"`
	Config   json.RawMessage `json:"config"`
	Window   int             `json:"window"`
	MaxLine  int             `json:"max_line"`
	LogLevel string          `json:"log_level"`
}

type hostName struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// pluginHello is what the plugin says of itself.
type pluginHello struct {
	Version       int             `json:"version"`
	Name          string          `json:"name"`
	PluginVersion string          `json:"plugin_version"`
	Features      []string        `json:"features"`
	Window        *int            `json:"window"`
	MaxLine       *int            `json:"max_line"`
	Schema        json.RawMessage `json:"schema"`
}

// refusal is why the plugin doesn't work for this host.
type refusal struct {
	Text     string `json:"text"`
	Problems []struct {
		Key  string `json:"key"`
		Text string `json:"text"`
	} `json:"problems"`
}

func (r refusal) Error() string {
	var all []string
	if r.Text != "" {
		all = append(all, r.Text)
	}
	for _, p := range r.Problems {
		if p.Key == "" {
			all = append(all, "config "+p.Text)
		} else {
			all = append(all, "config."+p.Key+" "+p.Text)
		}
	}
	if len(all) == 0 {
		return "it refuses to work, and doesn't say why"
	}
	return listed(all)
}

func listed(all []string) string {
	var b bytes.Buffer
	for i, text := range all {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(text)
	}
	return b.String()
}

// logLine is a line for the host's log.
type logLine struct {
	Level  string         `json:"level"`
	Text   string         `json:"text"`
	Fields map[string]any `json:"fields"`
}

// appendRequest appends a request with a message that is JSON already.
func appendRequest(b []byte, id int64, remaining time.Duration, msg []byte) []byte {
	b = strconv.AppendInt(append(b, `{"type":"request","id":`...), id, 10)
	b = strconv.AppendInt(append(b, `,"remaining_ms":`...), max(1, remaining.Milliseconds()), 10)
	b = append(append(b, `,"message":`...), msg...)
	return append(b, '}', '\n')
}

// line is one of the plugin: its type and the values of the keys that responses and pongs have.
type line struct {
	kind     string
	id       int64
	messages jsontext.Token[[]byte]
	failure  jsontext.Token[[]byte]
}

// parse reads a line that the plugin wrote. An error means that it is none of the protocol.
func parse(text []byte) (l line, err error) {
	s := jsontext.New(text)
	var kind, id jsontext.Token[[]byte]
	for s.Begin('{'); s.Next(); {
		key, value := s.Key(), s.Value()
		switch string(key) {
		case "type":
			kind = value
		case "id":
			id = value
		case "messages":
			l.messages = value
		case "error":
			l.failure = value
		}
	}
	switch {
	case s.End() != nil:
		return l, fmt.Errorf("it wrote a line that isn't a JSON object: %s: %w", quoted(text), s.End())
	case errors.Is(s.Flaw(), jsontext.ErrUTF8):
		return l, errors.New("it wrote a line that isn't UTF-8")
	}
	word, err := kind.Text()
	if kind.Kind != '"' || err != nil {
		return l, fmt.Errorf("it wrote a line without a type: %s; allowed: lines such as %s", quoted(text), stdio.Example)
	}
	l.kind = string(word)
	if l.kind == "response" || l.kind == "pong" {
		if l.id, err = stdio.Whole("id", id); err != nil {
			return l, fmt.Errorf("it wrote a %s without an id: %s", l.kind, quoted(text))
		}
	}
	return l, nil
}

// quoted is the beginning of a line, for people.
func quoted(text []byte) string {
	const most = 120
	if len(text) > most {
		return strconv.Quote(string(text[:most])) + "..."
	}
	return strconv.Quote(string(text))
}

// outcome is what a response says: the messages that were produced, or the error. An error of its own means that the response is none.
func (l *line) outcome(destinations map[string]bool) ([]*message.Message, error) {
	if l.failure.Kind != 0 && l.failure.Kind != 'n' {
		return nil, l.cause()
	}
	if l.messages.Kind == 0 {
		return nil, nil
	}
	out, err := l.produced(destinations)
	if err != nil {
		return nil, fmt.Errorf("the plugin's response: %w", err)
	}
	return out, nil
}

// produced returns the messages that were produced.
func (l *line) produced(destinations map[string]bool) ([]*message.Message, error) {
	var out []*message.Message
	if l.messages.Kind != '[' {
		return nil, stdio.Amiss("messages", l.messages.Kind, "a list")
	}
	s := jsontext.New(l.messages.Raw)
	for s.Begin('['); s.Next(); {
		if len(out) == mostProduced {
			return nil, fmt.Errorf("it has more than %d messages", mostProduced)
		}
		msg, to, err := stdio.ParseMessage(&s)
		if err != nil {
			return nil, err
		}
		if msg.UUID == "" {
			msg.UUID = uuid.NewString()
			msg.Metadata[transports.MessageID] = msg.UUID
		}
		if to != "" {
			if !destinations[to] {
				return nil, handlers.Permanent(fmt.Errorf("a message goes to %q, which destinations doesn't list", to))
			}
			handlers.SetDestination(msg, handlers.TopicRef(to))
		}
		out = append(out, msg)
	}
	return out, s.Err()
}

// cause is the error that a response says.
func (l *line) cause() error {
	var said struct {
		Kind         string  `json:"kind"`
		Text         string  `json:"text"`
		RetryAfterMS float64 `json:"retry_after_ms"`
	}
	if l.failure.Kind != '{' {
		return fmt.Errorf("the plugin's response: %w", stdio.Amiss("error", l.failure.Kind, `an object such as {"kind":"permanent","text":"why"}`))
	}
	if err := jsontext.Unmarshal(l.failure.Raw, &said); err != nil {
		return fmt.Errorf("the plugin's response: its error: %w", err)
	}
	text := said.Text
	if text == "" {
		text = "the plugin doesn't say why"
	}
	err := errors.New(cut(text, mostSaid))
	switch said.Kind {
	case "permanent":
		err = handlers.Permanent(err)
	case "drop":
		err = handlers.Drop(err)
	case "unavailable":
		err = handlers.Unavailable(err)
	}
	const longest = 24 * time.Hour
	if said.RetryAfterMS > 0 {
		err = handlers.RetryAfter(err, time.Duration(min(said.RetryAfterMS, float64(longest.Milliseconds()))*float64(time.Millisecond)))
	}
	return err
}

const (
	// mostSaid is how much of what a plugin says in an error or in a line of the log is passed on, mostName how much of a name.
	mostSaid, mostName = 4 << 10, 100
	// mostFields and mostValue are how many fields of a log line are passed on, and how much of each.
	mostFields, mostValue = 32, 1 << 10
	// mostProduced is how many messages a response may have: each takes far more room here than in its line.
	mostProduced = 100_000
)
