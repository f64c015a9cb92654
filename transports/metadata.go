package transports

import "strings"

// Metadata keys. Transports that have such properties map them; others keep them as they are. Any
// other key is a header of its own name where a message leaves, and comes in as HeaderPrefix +
// name.
const (
	MessageID     = "message_id"
	CorrelationID = "correlation_id"
	ReplyTo       = "reply_to"
	ContentType   = "content_type"
	// ContentEncoding says how the payload is compressed, as in HTTP's Content-Encoding.
	ContentEncoding = "content_encoding"
	// Expiration is for how long the message may wait at its destination, in milliseconds.
	Expiration = "expiration"
	Priority   = "priority"
	Type       = "type"
	AppID      = "app_id"
	UserID     = "user_id"
	// Timestamp is RFC 3339 with up to nanoseconds.
	Timestamp = "timestamp"
	// Redelivered is "true" on a message that was handed out before.
	Redelivered = "redelivered"
	// Device is the device that a message is about; pipelines keep the order of each device by it.
	Device = "device"

	// HeaderPrefix stands before the exact name of a header.
	HeaderPrefix = "header."
	// SourcePrefix stands before keys that a transport sets to say where a message came from,
	// such as source.exchange.
	SourcePrefix = "source."
	// TraceParent and TraceState are the W3C trace context headers.
	TraceParent = HeaderPrefix + "traceparent"
	TraceState  = HeaderPrefix + "tracestate"
)

// Property says whether a metadata key has a meaning of its own. Any other key is a header of its
// name.
func Property(key string) bool {
	switch key {
	case MessageID, CorrelationID, ReplyTo, ContentType, ContentEncoding, Expiration, Priority, Type, AppID, UserID,
		Timestamp, Redelivered:
		return true
	}
	return strings.HasPrefix(key, SourcePrefix)
}

// brokerHeaders are the headers that RabbitMQ sets by itself: dead lettering, quorum queues and
// streams, federation, shovels. All other headers are their publishers', also if they begin with
// x-.
var brokerHeaders = map[string]struct{}{
	"x-death": {}, "x-first-death-exchange": {}, "x-first-death-queue": {}, "x-first-death-reason": {},
	"x-last-death-exchange": {}, "x-last-death-queue": {}, "x-last-death-reason": {},
	"x-delivery-count": {}, "x-acquired-count": {}, "x-stream-offset": {},
	"x-received-from": {}, "x-shovelled": {}, "x-shovelled-timestamp": {},
}

// OfBroker says whether a metadata key is a header that RabbitMQ sets by itself: it isn't sent on.
func OfBroker(key string) bool {
	name, header := strings.CutPrefix(key, HeaderPrefix)
	if !header {
		return false
	}
	_, own := brokerHeaders[name]
	return own
}

// OfDelivery says whether a metadata key is about the delivery that brought a message: it isn't
// sent on.
func OfDelivery(key string) bool {
	return key == Redelivered || strings.HasPrefix(key, SourcePrefix)
}
