package stdio

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/transports"
)

// ParseMessage reads the next value of s as a message. It also returns the message's destination,
// or "" if it has none.
func ParseMessage(s *jsontext.Scanner[[]byte]) (m *message.Message, to string, err error) {
	msg := message.NewMessage("", nil)
	var plain, encoded []byte
	var wrong error
	// text reads the value of a key, which must be a string.
	text := func(key, allowed string) []byte {
		if kind := s.Peek(); kind != 0 && kind != '"' {
			s.Value()
			wrong = cmp.Or(wrong, WrongType(key, kind, allowed))
			return nil
		}
		return s.Str()
	}
	if kind := s.Peek(); kind != 0 && kind != '{' {
		return nil, "", WrongType("message", kind, `an object such as {"payload":"text"}`)
	}
	for s.Begin('{'); s.Next(); {
		switch string(s.Key()) {
		case "id":
			msg.UUID = string(text("id", "a string"))
		case "to":
			to = string(text("to", "a string"))
		case "payload":
			plain = text("payload", "a string, which may contain JSON as text; payload_b64 for any bytes")
		case "payload_b64":
			encoded = text("payload_b64", "a string in base64")
		case "metadata":
			if kind := s.Peek(); kind != 0 && kind != '{' {
				s.Value()
				wrong = cmp.Or(wrong, WrongType("metadata", kind, "an object of strings"))
				continue
			}
			for s.Begin('{'); s.Next(); {
				key := internKey(s.Key())
				msg.Metadata[key] = string(text("metadata."+key, "a string"))
			}
		default:
			s.Value()
		}
	}
	if wrong != nil && s.Err() == nil {
		return nil, "", fmt.Errorf("the message: %w", wrong)
	}
	if err := s.Err(); err != nil {
		return nil, "", fmt.Errorf("the message: %w", err)
	}
	if plain != nil && encoded != nil {
		return nil, "", errors.New("the message has two payloads")
	}
	msg.Payload = append([]byte(nil), plain...)
	if encoded != nil {
		if msg.Payload, err = base64.StdEncoding.Strict().DecodeString(string(encoded)); err != nil {
			return nil, "", fmt.Errorf("the message's payload: %w", err)
		}
	}
	return msg, to, nil
}

// Example is a correct line of a plugin, for error texts.
const Example = `{"type":"response","id":1,"messages":[{"payload":"text"}]}`

// typeNames has the name of each JSON type. The key is the type's first byte, as in tokens.
var typeNames = map[byte]string{'{': "an object", '[': "a list", '"': "a string", '0': "a number", 't': "true", 'f': "false", 'n': "null"}

// WrongType returns an error for a key whose value has the wrong JSON type.
func WrongType(key string, kind byte, allowed string) error {
	what, ok := typeNames[kind]
	if !ok {
		what = "not JSON"
	}
	return fmt.Errorf("%.100q is %s; allowed: %s", key, what, allowed)
}

// commonKeys has the metadata keys that most messages have.
var commonKeys = func() map[string]string {
	m := map[string]string{}
	for _, n := range []string{
		transports.MessageID, transports.CorrelationID, transports.ReplyTo, transports.ContentType, transports.Type, transports.AppID, transports.Timestamp,
		transports.Redelivered, transports.Device, transports.TraceParent, transports.TraceState,
	} {
		m[n] = n
	}
	return m
}()

// internKey returns a key as a string. For a common key it allocates nothing.
func internKey(key []byte) string {
	if n, ok := commonKeys[string(key)]; ok {
		return n
	}
	return string(key)
}

// AppendMessage appends a message as JSON, with its destination unless that is "".
func AppendMessage(b []byte, m *message.Message, to string) []byte {
	b = append(b, '{')
	if m.UUID != "" {
		b = append(jsontext.AppendString(append(b, `"id":`...), m.UUID), ',')
	}
	if utf8.Valid(m.Payload) {
		b = jsontext.AppendString(append(b, `"payload":`...), m.Payload)
	} else {
		b = append(b, `"payload_b64":"`...)
		b = append(base64.StdEncoding.AppendEncode(b, m.Payload), '"')
	}
	if len(m.Metadata) > 0 {
		b = append(b, `,"metadata":{`...)
		for key, value := range m.Metadata {
			b = append(jsontext.AppendString(b, key), ':')
			b = append(jsontext.AppendString(b, value), ',')
		}
		b[len(b)-1] = '}'
	}
	if to != "" {
		b = jsontext.AppendString(append(b, `,"to":`...), to)
	}
	return append(b, '}')
}

// ParseWhole returns the value of a key as a whole number.
func ParseWhole(key string, value jsontext.Token[[]byte]) (int64, error) {
	n, err := strconv.ParseInt(string(value.Raw), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("its %s is %q; allowed: a whole number", key, value.Raw)
	}
	return n, nil
}
