package transports

// Metadata keys. Transports that have such properties map them; others keep them as they are. Any other key is a header
// of its own name where a message leaves, and comes in as HeaderPrefix + name.
const (
	MessageID     = "message_id"
	CorrelationID = "correlation_id"
	ReplyTo       = "reply_to"
	ContentType   = "content_type"
	// ContentEncoding is the AMQP content_encoding or the HTTP Content-Encoding.
	ContentEncoding = "content_encoding"
	// Expiration is the time to live in the broker, in milliseconds, as AMQP spells it.
	Expiration = "expiration"
	Priority   = "priority"
	Type       = "type"
	AppID      = "app_id"
	UserID     = "user_id"
	// Timestamp is RFC 3339 with nanoseconds; AMQP carries whole seconds.
	Timestamp = "timestamp"
	// Redelivered is "true" on a message that was handed out before.
	Redelivered = "redelivered"
	// Exchange and RoutingKey say how a message came in through a broker.
	Exchange   = "exchange"
	RoutingKey = "routing_key"
	// Device is the device that a message is about; pipelines keep the order of each device by it.
	Device = "device"

	// HeaderPrefix stands before the exact name of a header.
	HeaderPrefix = "header."
	// TraceParent and TraceState are the W3C trace context headers.
	TraceParent = HeaderPrefix + "traceparent"
	TraceState  = HeaderPrefix + "tracestate"
)
