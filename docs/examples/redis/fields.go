package redis

import (
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// payloadField is the field of an entry that has the payload. Every other field is metadata.
const payloadField = "payload"

// fields writes messages as the plain fields of an entry, so that `XADD commands * payload ...`
// makes one. It accepts every entry, because redisstream ends the subscription on an error.
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
		msg.Metadata[key] = fmt.Sprint(value)
	}
	if id := msg.Metadata[transports.MessageID]; id != "" {
		msg.UUID = id
	}
	msg.Payload = []byte(msg.Metadata[payloadField])
	delete(msg.Metadata, payloadField)
	return msg, nil
}
