package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/internal/stdio"
	"github.com/pentrough/pentrough/transports"
)

// The host and the plugin exchange lines; each is one JSON object with a type
// (docs/process-protocol.md). This file has the lines of both sides and their parsers.
//
// The order of the lines:
//
//   - The host writes hello. The plugin writes hello, and then ready or refuse.
//   - After ready, the host writes requests. The plugin writes one response to each, in any order.
//   - The host may write cancel, ping and drain, and the plugin pong, drained and log.
//
// Invariants:
//
//   - An id is used once in the life of a process, by a request or a ping.
//   - A line that breaks the protocol ends the process: parse returns an error. A response with
//     wrong messages doesn't break the protocol: its request gets an error, and the process goes
//     on.
//   - Everything that a plugin writes has a limit: lines, texts, fields and numbers of messages.

// minMaxLine is the smallest max_line that either side may announce.
const minMaxLine = 64 << 10

// hostHello is the host's first line. It describes the host and the limits.
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

// pluginHello is the plugin's first line. A nil Window or MaxLine means the host's value.
type pluginHello struct {
	Version       int             `json:"version"`
	Name          string          `json:"name"`
	PluginVersion string          `json:"plugin_version"`
	Features      []string        `json:"features"`
	Window        *int            `json:"window"`
	MaxLine       *int            `json:"max_line"`
	Schema        json.RawMessage `json:"schema"`
}

// refusal is a plugin's `refuse`: the reasons why it can't work for this host.
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
		return "it refuses to work and gives no reason"
	}
	return strings.Join(all, "; ")
}

// logLine is a plugin's `log`: a line for the host's log.
type logLine struct {
	Level  string         `json:"level"`
	Text   string         `json:"text"`
	Fields map[string]any `json:"fields"`
}

// appendRequest appends a request. The message is JSON already.
func appendRequest(b []byte, id int64, remaining time.Duration, msg []byte) []byte {
	b = strconv.AppendInt(append(b, `{"type":"request","id":`...), id, 10)
	b = strconv.AppendInt(append(b, `,"remaining_ms":`...), max(1, remaining.Milliseconds()), 10)
	b = append(append(b, `,"message":`...), msg...)
	return append(b, '}', '\n')
}

// line is one line of the plugin: its type, and the keys of `response` and `pong`. messages and
// failure point into the text of the line, which is valid until the next line is read.
type line struct {
	kind     string
	id       int64
	messages jsontext.Token[[]byte]
	failure  jsontext.Token[[]byte]
}

// parse reads a line of the plugin. An error means that the line breaks the protocol, and the
// process must be killed.
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
		return l, fmt.Errorf("it wrote a line that isn't a JSON object: %s: %w", quoteStart(text), s.End())
	case errors.Is(s.Flaw(), jsontext.ErrUTF8):
		return l, errors.New("it wrote a line that isn't UTF-8")
	}
	word, err := kind.Text()
	if kind.Kind != '"' || err != nil {
		return l, fmt.Errorf("it wrote a line without a type: %s; a correct line is %s", quoteStart(text), stdio.Example)
	}
	l.kind = string(word)
	if l.kind == "response" || l.kind == "pong" {
		if l.id, err = stdio.ParseWhole("id", id); err != nil {
			return l, fmt.Errorf("it wrote a %s without an id: %s", l.kind, quoteStart(text))
		}
	}
	return l, nil
}

// quoteStart returns the first bytes of a line in quotes, for error texts.
func quoteStart(text []byte) string {
	const most = 120
	if len(text) > most {
		return strconv.Quote(string(text[:most])) + "..."
	}
	return strconv.Quote(string(text))
}

// parseResponse returns the messages of a response, or its error. A response with wrong messages
// or a wrong error becomes a retryable error, and an unlisted destination a permanent one.
func (l *line) parseResponse(destinations map[string]bool) ([]*message.Message, error) {
	if l.failure.Kind != 0 && l.failure.Kind != 'n' {
		return nil, l.parseError()
	}
	if l.messages.Kind == 0 {
		return nil, nil
	}
	out, err := l.parseMessages(destinations)
	if err != nil {
		return nil, fmt.Errorf("reading the plugin's response: %w", err)
	}
	return out, nil
}

// parseMessages returns the messages of a response.
func (l *line) parseMessages(destinations map[string]bool) ([]*message.Message, error) {
	var out []*message.Message
	if l.messages.Kind != '[' {
		return nil, stdio.WrongType("messages", l.messages.Kind, "a list")
	}
	s := jsontext.New(l.messages.Raw)
	for s.Begin('['); s.Next(); {
		if len(out) == maxProduced {
			return nil, fmt.Errorf("it has more than %d messages", maxProduced)
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
				return nil, handlers.Permanent(fmt.Errorf("a message has the destination %q, which destinations doesn't list", to))
			}
			handlers.SetDestination(msg, handlers.TopicRef(to))
		}
		out = append(out, msg)
	}
	return out, s.Err()
}

// parseError returns the error of a response as an error of its kind.
func (l *line) parseError() error {
	var value struct {
		Kind         string  `json:"kind"`
		Text         string  `json:"text"`
		RetryAfterMS float64 `json:"retry_after_ms"`
	}
	if l.failure.Kind != '{' {
		return fmt.Errorf("reading the plugin's response: %w", stdio.WrongType("error", l.failure.Kind, `an object such as {"kind":"permanent","text":"why"}`))
	}
	if err := jsontext.Unmarshal(l.failure.Raw, &value); err != nil {
		return fmt.Errorf("reading the error in the plugin's response: %w", err)
	}
	text := value.Text
	if text == "" {
		text = "the plugin gives no reason"
	}
	err := errors.New(truncate(text, maxText))
	switch value.Kind {
	case "permanent":
		err = handlers.Permanent(err)
	case "drop":
		err = handlers.Drop(err)
	case "unavailable":
		err = handlers.Unavailable(err)
	}
	const longest = 24 * time.Hour
	if value.RetryAfterMS > 0 {
		err = handlers.RetryAfter(err, time.Duration(min(value.RetryAfterMS, float64(longest.Milliseconds()))*float64(time.Millisecond)))
	}
	return err
}

const (
	// maxText limits the text of an error or log line in bytes, and maxName the length of a name.
	maxText, maxName = 4 << 10, 100
	// maxFields limits the number of fields of a log line, and maxValue the bytes of each.
	maxFields, maxValue = 32, 1 << 10
	// maxProduced limits the messages of a response. Each takes far more memory than its text in
	// the line.
	maxProduced = 100_000
)
