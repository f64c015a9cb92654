package transports

import (
	"context"
	"encoding"
	"maps"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Delivery is one message as its source delivered it. The receiver owns it until it is settled or
// void. The receiver must not modify it, but may modify the result of [Delivery.Message].
type Delivery struct {
	UUID     string
	Payload  message.Payload
	Metadata message.Metadata
	// Headers has the headers in the transport's own types; nil if there are none. The metadata
	// have them as text.
	Headers encoding.TextMarshaler
	// Context ends when the delivery becomes void: see [ErrVoid]. Deliveries may share one.
	Context context.Context
	// Wait is how long the sender wants to wait for an answer that comes from outside this host,
	// such as the result of a command that is published to a broker. 0 means that it doesn't wait.
	Wait time.Duration
	// Settle ends the delivery with the message's outcome; nil gives the message back to its
	// source. The router calls Settle while it has a lock, so Settle must not block. Slow work,
	// such as a write to a socket, belongs in another goroutine. The router may call it before
	// take has returned. Only the first call has an effect. After the delivery has become void, no
	// call has an effect.
	Settle func(o *Outcome)
}

// Message returns a message with the delivery's content. The caller may change it, except for the
// bytes of its payload. Its Ack and Nack don't settle the delivery. Don't wait for its Acked or
// Nacked channel.
func (d *Delivery) Message() *message.Message {
	metadata := maps.Clone(d.Metadata)
	if metadata == nil {
		metadata = message.Metadata{}
	}
	return &message.Message{UUID: d.UUID, Payload: slices.Clip(d.Payload), Metadata: metadata}
}

// Outcome says how a message ended. It must not be modified after Settle.
type Outcome struct {
	// Messages has the produced messages. Those with a destination are confirmed.
	Messages []*message.Message
	// Err is nil if the message was handled, and otherwise why it wasn't. Its kind says whether
	// the message was at fault.
	Err error
	// Code is the HTTP status for Err's kind, for a transport that answers a caller: 200 for a
	// message that was handled or dropped on purpose, 400 permanent, 500 retryable, 503
	// unavailable. 0 with an Err means 500.
	Code int
	// ID is the message's id, as the handler described it.
	ID string
	// Published says that at least one message went to a destination.
	Published bool
	// Answer gets the answer from outside this host. It is nil unless [Delivery].Wait was set and
	// the destination can answer.
	Answer <-chan *message.Message
}
