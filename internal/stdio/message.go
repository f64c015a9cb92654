package stdio

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// ParseMessage reads a message and where it is to go, "" if it doesn't say.
func ParseMessage(text []byte) (m *message.Message, to string, err error) {
	s := Scan(text)
	msg := message.NewMessage("", nil)
	var plain, coded []byte
	err = s.Object(func(key []byte) error {
		var err error
		switch string(key) {
		case "id":
			msg.UUID, err = s.StringValue()
		case "to":
			to, err = s.StringValue()
		case "payload":
			plain, err = s.Str()
		case "payload_b64":
			coded, err = s.Str()
		case "metadata":
			err = s.Object(func(key []byte) error {
				k := name(key)
				v, err := s.StringValue()
				msg.Metadata[k] = v
				return err
			})
		default:
			_, err = s.Value()
		}
		return err
	})
	if err != nil {
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

// AppendText appends a JSON string. What isn't UTF-8 in it is replaced.
func AppendText(b []byte, text string) []byte {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\ufffd")
	}
	return AppendValid(b, []byte(text))
}

// AppendValid appends a JSON string of valid UTF-8.
func AppendValid(b, text []byte) []byte {
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

// AppendMessage appends a message, and where it is to go unless that is "".
func AppendMessage(b []byte, m *message.Message, to string) []byte {
	b = append(b, '{')
	if m.UUID != "" {
		b = append(AppendText(append(b, `"id":`...), m.UUID), ',')
	}
	if utf8.Valid(m.Payload) {
		b = AppendValid(append(b, `"payload":`...), m.Payload)
	} else {
		b = append(b, `"payload_b64":"`...)
		b = append(base64.StdEncoding.AppendEncode(b, m.Payload), '"')
	}
	if len(m.Metadata) > 0 {
		b = append(b, `,"metadata":{`...)
		for key, value := range m.Metadata {
			b = append(AppendText(b, key), ':')
			b = append(AppendText(b, value), ',')
		}
		b[len(b)-1] = '}'
	}
	if to != "" {
		b = AppendText(append(b, `,"to":`...), to)
	}
	return append(b, '}')
}
