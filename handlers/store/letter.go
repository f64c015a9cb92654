package store

import (
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// prefix stands before the metadata keys that the middleware poison adds. Through a broker they come back as headers.
const prefix = "poison."

// letter is a message as it was before it was put aside, and what was said of it then.
func letter(msg *message.Message) handlers.DeadLetter {
	said := func(key string) string {
		if value, ok := msg.Metadata[prefix+key]; ok {
			return value
		}
		return msg.Metadata[transports.HeaderPrefix+prefix+key]
	}
	l := handlers.DeadLetter{
		Cause: said("cause"), Kind: said("kind"), Pipeline: said("pipeline"), Handler: said("handler"), From: handlers.TopicRef(said("from")),
		Exchange: said("exchange"), RoutingKey: said("routing_key"), MessageID: msg.Metadata[transports.MessageID],
		Metadata: make(map[string]string, len(msg.Metadata)), Body: msg.Payload,
	}
	if l.MessageID == "" {
		l.MessageID = msg.UUID
	}
	if t, err := time.Parse(time.RFC3339Nano, said("time")); err == nil {
		l.Time = t
	}
	if n, err := strconv.ParseInt(said("attempts"), 10, 32); err == nil {
		l.Attempts = int(n)
	}
	for key, value := range msg.Metadata {
		if !transports.OfDelivery(key) && !strings.HasPrefix(strings.TrimPrefix(key, transports.HeaderPrefix), prefix) {
			l.Metadata[key] = value
		}
	}
	if expiration := said("expiration"); expiration != "" {
		l.Metadata[transports.Expiration] = expiration
	}
	if typed := transports.ExtraOf(msg.Context()).Headers; typed != nil {
		// What can't be written is there as text.
		if text, err := typed.MarshalText(); err == nil {
			l.Headers = text
		}
	}
	return l
}
