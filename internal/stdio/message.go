package stdio

import (
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
	for s.Begin('{'); s.Next(); {
		switch string(s.Key()) {
		case "id":
			msg.UUID = string(s.Str())
		case "to":
			to = string(s.Str())
		case "payload":
			plain = s.Str()
		case "payload_b64":
			coded = s.Str()
		case "metadata":
			for s.Begin('{'); s.Next(); {
				msg.Metadata[name(s.Key())] = string(s.Str())
			}
		default:
			s.Value()
		}
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
