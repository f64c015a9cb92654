package stdio

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
)

// ParseMessage reads a message and where it is to go, "" if it doesn't say.
func ParseMessage(text []byte) (m *message.Message, to string, err error) {
	s := Scan(text)
	var id string
	var plain, coded []byte
	var metadata message.Metadata
	err = s.Object(func(key []byte) error {
		var err error
		switch string(key) {
		case "id":
			id, err = s.StringValue()
		case "to":
			to, err = s.StringValue()
		case "payload":
			plain, err = s.Str()
		case "payload_b64":
			coded, err = s.Str()
		case "metadata":
			metadata = make(message.Metadata, 8)
			err = s.Object(func(key []byte) error {
				k := string(key)
				v, err := s.StringValue()
				metadata[k] = v
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
	data := append([]byte(nil), plain...)
	if coded != nil {
		if data, err = base64.StdEncoding.Strict().DecodeString(string(coded)); err != nil {
			return nil, "", fmt.Errorf("the message's payload: %w", err)
		}
	}
	msg := message.NewMessage(id, data)
	if metadata != nil {
		msg.Metadata = metadata
	}
	return msg, to, nil
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
