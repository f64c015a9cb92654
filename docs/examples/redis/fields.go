package redis

import (
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// payloadField is the field of an entry that has the payload. Every other field is metadata.
const payloadField = "payload"

// fields writes messages as the plain fields of an entry, so that `XADD commands * payload ...` makes one. Any entry is
// a message: one that isn't would end the subscription each time it is read.
type fields struct{}

// Marshal implements redisstream.Marshaller.
func (fields) Marshal(_ string, msg *message.Message) (map[string]any, error) {
	entry := map[string]any{payloadField: []byte(msg.Payload)}
	for key, value := range msg.Metadata {
		if key == payloadField {
			key = transports.HeaderPrefix + key
		}
		entry[key] = value
	}
	return entry, nil
}

// Unmarshal implements redisstream.Unmarshaller.
func (fields) Unmarshal(entry map[string]any) (*message.Message, error) {
	msg := message.NewMessage(watermill.NewUUID(), nil)
	for key, value := range entry {
		switch text := fmt.Sprint(value); key {
		case payloadField:
			msg.Payload = []byte(text)
		case transports.MessageID:
			msg.UUID = text
			fallthrough
		default:
			msg.Metadata[key] = text
		}
	}
	return msg, nil
}
