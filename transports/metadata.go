package transports

import "strings"

// Metadata keys. A transport maps them to the properties of its system. If the system has no such
// property, the transport leaves the key as it is. Every other key becomes a header of that name
// when a message is published. A header of a delivered message has the key HeaderPrefix + name.
const (
	MessageID     = "message_id"
	CorrelationID = "correlation_id"
	ReplyTo       = "reply_to"
	ContentType   = "content_type"
	// ContentEncoding says how the payload is compressed, as in HTTP's Content-Encoding.
	ContentEncoding = "content_encoding"
	// Expiration is how long the message may wait at its destination, in milliseconds.
	Expiration = "expiration"
	Priority   = "priority"
	Type       = "type"
	AppID      = "app_id"
	UserID     = "user_id"
	// Timestamp is RFC 3339 with up to nanoseconds.
	Timestamp = "timestamp"
	// Redelivered is "true" for a message that was delivered before.
	Redelivered = "redelivered"
	// Device is the device that a message is about. It is the default key of a pipeline.
	Device = "device"

	// HeaderPrefix stands before the exact name of a header.
	HeaderPrefix = "header."
	// SourcePrefix begins the keys with which a transport says where a message came from, such as
	// source.exchange.
	SourcePrefix = "source."
	// TraceParent and TraceState are the W3C trace context headers.
	TraceParent = HeaderPrefix + "traceparent"
	TraceState  = HeaderPrefix + "tracestate"
)

// Property reports whether a metadata key has a meaning of its own. Any other key is a header of
// that name.
func Property(key string) bool {
	switch key {
	case MessageID, CorrelationID, ReplyTo, ContentType, ContentEncoding, Expiration, Priority, Type, AppID, UserID,
		Timestamp, Redelivered:
		return true
	}
	return strings.HasPrefix(key, SourcePrefix)
}

// brokerHeaders has the headers that RabbitMQ sets by itself, for dead lettering, quorum queues,
// streams, federation and shovels. All other headers come from publishers, even if they begin with
// x-.
var brokerHeaders = map[string]struct{}{
	"x-death": {}, "x-first-death-exchange": {}, "x-first-death-queue": {}, "x-first-death-reason": {},
	"x-last-death-exchange": {}, "x-last-death-queue": {}, "x-last-death-reason": {},
	"x-delivery-count": {}, "x-acquired-count": {}, "x-stream-offset": {},
	"x-received-from": {}, "x-shovelled": {}, "x-shovelled-timestamp": {},
}

// OfBroker reports whether a metadata key is a header that RabbitMQ sets by itself. The host
// doesn't publish such headers.
func OfBroker(key string) bool {
	name, header := strings.CutPrefix(key, HeaderPrefix)
	if !header {
		return false
	}
	_, own := brokerHeaders[name]
	return own
}

// OfDelivery reports whether a metadata key describes the delivery of a message. The host doesn't
// publish such keys.
func OfDelivery(key string) bool {
	return key == Redelivered || strings.HasPrefix(key, SourcePrefix)
}
