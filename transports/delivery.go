package transports

import (
	"context"
	"encoding"
	"maps"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Delivery is one message as a source handed it out. The receiver owns it until it is settled or
// void, and must not modify it: it modifies the result of [Delivery.Message] instead.
type Delivery struct {
	UUID     string
	Payload  message.Payload
	Metadata message.Metadata
	// Headers are the headers in the transport's own types; the metadata have them as text. Nil: there are none.
	Headers encoding.TextMarshaler
	// Context ends when the delivery becomes void: see [ErrVoid]. Deliveries may share one.
	Context context.Context
	// Wait is how long the sender wants to wait for an answer that comes from beyond this host, such as the
	// result of a command that is published to a broker. 0: not at all.
	Wait time.Duration
	// Settle ends the delivery, with what became of the message; nil hands it back. The router calls
	// it with its lock held, so that it must not block: slow work, such as writing to a socket, is
	// for another goroutine. It may be called while the delivery is being handed out. Only the first
	// call counts, and none once the delivery is void.
	Settle func(o *Outcome)
}

// Message returns a message of the delivery's content that may be changed, but for the bytes of its
// payload. Acking it settles nothing. Don't wait for its Acked or Nacked channel.
func (d *Delivery) Message() *message.Message {
	metadata := maps.Clone(d.Metadata)
	if metadata == nil {
		metadata = message.Metadata{}
	}
	return &message.Message{UUID: d.UUID, Payload: slices.Clip(d.Payload), Metadata: metadata}
}

// Outcome is what became of a message. It must not be modified after Settle.
type Outcome struct {
	// Messages were produced and, where they have a destination, confirmed.
	Messages []*message.Message
	// Err is why the message was given up, nil if it was handled. Its kind says whose fault it was.
	Err error
	// Code says in HTTP's terms what Err's kind is, for a transport that answers a caller: 200 for a message that
	// was handled or dropped on purpose, 400 permanent, 500 retryable, 503 unavailable. 0 with an Err counts as 500.
	Code int
	// ID is the message's id, as described by the handler.
	ID string
	// Published says that at least one message went to a destination.
	Published bool
	// Answer yields the answer from beyond this host, if one is expected: [Delivery].Wait was set and the
	// destination can answer.
	Answer <-chan *message.Message
}
