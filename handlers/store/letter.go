package store

import (
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// prefix is the prefix of the metadata keys that the middleware poison adds. If a broker delivered
// the message, these keys are headers.
const prefix = "poison."

// newLetter returns a dead letter: the message as it was before poison changed it, and what poison
// added.
func newLetter(msg *message.Message) handlers.DeadLetter {
	added := func(key string) string {
		if value, ok := msg.Metadata[prefix+key]; ok {
			return value
		}
		return msg.Metadata[transports.HeaderPrefix+prefix+key]
	}
	l := handlers.DeadLetter{
		Cause: added("cause"), Kind: added("kind"), Pipeline: added("pipeline"), Handler: added("handler"), From: handlers.TopicRef(added("from")),
		Exchange: added("exchange"), RoutingKey: added("routing_key"), MessageID: msg.Metadata[transports.MessageID],
		Metadata: make(map[string]string, len(msg.Metadata)), Body: msg.Payload,
	}
	if l.MessageID == "" {
		l.MessageID = msg.UUID
	}
	if t, err := time.Parse(time.RFC3339Nano, added("time")); err == nil {
		l.Time = t
	}
	if n, err := strconv.ParseInt(added("attempts"), 10, 32); err == nil {
		l.Attempts = int(n)
	}
	for key, value := range msg.Metadata {
		if !transports.OfDelivery(key) && !strings.HasPrefix(strings.TrimPrefix(key, transports.HeaderPrefix), prefix) {
			l.Metadata[key] = value
		}
	}
	if expiration := added("expiration"); expiration != "" {
		l.Metadata[transports.Expiration] = expiration
	}
	if typed := transports.ExtraOf(msg.Context()).Headers; typed != nil {
		// Headers that can't be written this way are in Metadata as text.
		if text, err := typed.MarshalText(); err == nil {
			l.Headers = text
		}
	}
	return l
}
