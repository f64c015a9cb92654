package pubsub

import (
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// incomingKey returns the key under which a Pub/Sub's metadata key comes in: properties as they
// are, anything else as a header of its name. It is false for what only the transport itself may
// say.
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

// outgoing makes the message that is published. Its UUID is its message_id. A header loses its
// prefix, unless its bare name is that of a property.
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
