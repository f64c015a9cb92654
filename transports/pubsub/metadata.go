package pubsub

import (
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// incomingKey returns the metadata key of a message for a key of the Pub/Sub. A property keeps its
// key. Any other key becomes a header of that name. It returns false for a key that only the
// transport itself may set.
func incomingKey(key string) (string, bool) {
	switch {
	case transports.OfDelivery(key):
		return "", false
	case transports.Property(key), strings.HasPrefix(key, transports.HeaderPrefix):
		return key, true
	default:
		return transports.HeaderPrefix + key, true
	}
}

// outgoing makes the message that is published. Its UUID is its message_id. A header is published
// without its prefix, unless its name is that of a property.
func outgoing(msg *message.Message) *message.Message {
	out := message.NewMessage(msg.UUID, msg.Payload)
	if id := msg.Metadata[transports.MessageID]; id != "" {
		out.UUID = id
	}
	for key, value := range msg.Metadata {
		if transports.OfDelivery(key) {
			continue
		}
		name, header := strings.CutPrefix(key, transports.HeaderPrefix)
		if !header {
			out.Metadata[key] = value
			continue
		}
		if back, ok := incomingKey(name); !ok || back != key {
			name = key
		}
		if _, later := msg.Metadata[name]; !later || name == key {
			out.Metadata[name] = value
		}
	}
	out.SetContext(msg.Context())
	return out
}
