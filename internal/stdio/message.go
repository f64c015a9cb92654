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

// ParseMessage reads the message that comes next in s, and where it is to go, "" if it doesn't say.
func ParseMessage(s *jsontext.Scanner[[]byte]) (m *message.Message, to string, err error) {
	msg := message.NewMessage("", nil)
	var plain, coded []byte
	var amiss error
	// text reads the value of a key, which must be a string.
	text := func(key, allowed string) []byte {
		if kind := s.Peek(); kind != 0 && kind != '"' {
			s.Value()
			amiss = cmp.Or(amiss, Amiss(key, kind, allowed))
			return nil
		}
		return s.Str()
	}
	if kind := s.Peek(); kind != 0 && kind != '{' {
		return nil, "", Amiss("message", kind, `an object such as {"payload":"text"}`)
	}
	for s.Begin('{'); s.Next(); {
		switch string(s.Key()) {
		case "id":
			msg.UUID = string(text("id", "a string"))
		case "to":
			to = string(text("to", "a string"))
		case "payload":
			plain = text("payload", "a string, which may hold JSON as text; payload_b64 for any bytes")
		case "payload_b64":
			coded = text("payload_b64", "a string in base64")
		case "metadata":
			if kind := s.Peek(); kind != 0 && kind != '{' {
				s.Value()
				amiss = cmp.Or(amiss, Amiss("metadata", kind, "an object of strings"))
				continue
			}
			for s.Begin('{'); s.Next(); {
				key := name(s.Key())
				msg.Metadata[key] = string(text("metadata."+key, "a string"))
			}
		default:
			s.Value()
		}
	}
	if amiss != nil && s.Err() == nil {
		return nil, "", fmt.Errorf("the message: %w", amiss)
	}
	if err := s.Err(); err != nil {
		return nil, "", fmt.Errorf("the message: %w", err)
	}
	if plain != nil && coded != nil {
		return nil, "", errors.New("the message has two payloads")
	}
	msg.Payload = append([]byte(nil), plain...)
	if coded != nil {
		if msg.Payload, err = base64.StdEncoding.Strict().DecodeString(string(coded)); err != nil {
			return nil, "", fmt.Errorf("the message's payload: %w", err)
		}
	}
	return msg, to, nil
}

// Example is a line of a plugin.
const Example = `{"type":"response","id":1,"messages":[{"payload":"text"}]}`

// kinds are what values are called by their first byte, as tokens have it.
var kinds = map[byte]string{'{': "an object", '[': "a list", '"': "a string", '0': "a number", 't': "true", 'f': "false", 'n': "null"}

// Amiss says that the value of a key is of the wrong kind, and what is allowed.
func Amiss(key string, kind byte, allowed string) error {
	what, ok := kinds[kind]
	if !ok {
		what = "no JSON"
	}
	return fmt.Errorf("%.100q is %s; allowed: %s", key, what, allowed)
}

// names are keys of metadata that most messages have.
var names = func() map[string]string {
	m := map[string]string{}
	for _, n := range []string{
		transports.MessageID, transports.CorrelationID, transports.ReplyTo, transports.ContentType, transports.Type, transports.AppID, transports.Timestamp,
		transports.Redelivered, transports.Device, transports.TraceParent, transports.TraceState,
	} {
		m[n] = n
	}
	return m
}()

// name is a key as a string, without a new one for those that are common.
func name(key []byte) string {
	if n, ok := names[string(key)]; ok {
		return n
	}
	return string(key)
}

// AppendMessage appends a message, and where it is to go unless that is "".
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

// Whole returns the whole number that the value of a key is.
func Whole(key string, value jsontext.Token[[]byte]) (int64, error) {
	n, err := strconv.ParseInt(string(value.Raw), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("its %s is %q", key, value.Raw)
	}
	return n, nil
}
