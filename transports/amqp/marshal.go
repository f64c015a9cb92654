package amqp

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

// maxHeaders bounds the headers of a message, because they must fit into one frame.
const maxHeaders = 64 << 10

// SourceExchange and SourceRoutingKey are the metadata keys that say where a message was
// published.
const (
	SourceExchange   = transports.SourcePrefix + "exchange"
	SourceRoutingKey = transports.SourcePrefix + "routing_key"
)

// directReplyTo is RabbitMQ's pseudo queue for direct replies. A message that is published with
// this reply_to needs a consumer on the same channel.
const directReplyTo = "amq.rabbitmq.reply-to"

// marshaler maps AMQP properties to metadata keys, and AMQP headers to keys "header.NAME". Marshal
// fails only for a body that is too large. A property that AMQP can't carry is sent as a header of
// its key, or left out. Both are counted.
type marshaler struct {
	now  func() time.Time
	user string
	// largest is the size of the largest body.
	largest    int
	unsendable prometheus.Counter
}

var _ wamqp.Marshaler = (*marshaler)(nil)

// Unmarshal turns a delivery into a message. The message's context carries the headers in AMQP's
// types.
func (m *marshaler) Unmarshal(d amqp.Delivery) (*message.Message, error) {
	return m.toMessage(&d), nil
}

// toMessage is Unmarshal without an error.
func (m *marshaler) toMessage(d *amqp.Delivery) *message.Message {
	in := m.toDelivery(d)
	msg := message.NewMessage(in.UUID, in.Payload)
	msg.Metadata = in.Metadata
	if in.Headers != nil {
		msg.SetContext(transports.WithHeaders(msg.Context(), in.Headers))
	}
	return msg
}

// toDelivery returns the content of a delivery. The caller sets Context and Settle.
func (m *marshaler) toDelivery(d *amqp.Delivery) transports.Delivery {
	out := transports.Delivery{UUID: d.MessageId, Payload: d.Body}
	if out.UUID == "" {
		out.UUID = uuid.NewString()
	}
	if len(d.Headers) > 0 {
		out.Headers = headers(d.Headers)
	}
	var priority, timestamp, redelivered string
	if d.Priority > 0 {
		priority = strconv.Itoa(int(d.Priority))
	}
	if !d.Timestamp.IsZero() {
		timestamp = d.Timestamp.UTC().Format(time.RFC3339Nano)
	}
	if d.Redelivered {
		redelivered = "true"
	}
	properties := [...]struct{ key, value string }{
		{transports.MessageID, d.MessageId},
		{transports.CorrelationID, d.CorrelationId},
		{transports.ReplyTo, d.ReplyTo},
		{transports.ContentType, d.ContentType},
		{transports.ContentEncoding, d.ContentEncoding},
		{transports.Expiration, d.Expiration},
		{transports.Type, d.Type},
		{transports.AppID, d.AppId},
		{transports.UserID, d.UserId},
		{SourceExchange, d.Exchange},
		{SourceRoutingKey, d.RoutingKey},
		{transports.Priority, priority},
		{transports.Timestamp, timestamp},
		{transports.Redelivered, redelivered},
	}
	// Count the keys first: a map for up to eight keys takes less memory than a larger one.
	n := len(d.Headers)
	for _, p := range properties {
		if p.value != "" {
			n++
		}
	}
	out.Metadata = make(message.Metadata, n)
	for _, p := range properties {
		if p.value != "" {
			out.Metadata[p.key] = p.value
		}
	}
	for name, value := range d.Headers {
		out.Metadata[transports.HeaderPrefix+name] = renderHeader(value)
	}
	return out
}

// Marshal turns a message into a publishing. A header whose text hasn't changed keeps its AMQP
// type.
func (m *marshaler) Marshal(msg *message.Message) (amqp.Publishing, error) {
	if len(msg.Payload) > m.largest {
		return amqp.Publishing{}, fmt.Errorf("%w: the body has %d bytes, max_message is %d", transports.ErrUnsendable, len(msg.Payload), m.largest)
	}
	p := amqp.Publishing{
		MessageId:    msg.UUID,
		DeliveryMode: amqp.Persistent,
		Timestamp:    m.now(),
		Body:         msg.Payload,
	}
	typed := typedHeaders(msg.Context())
	header := func(name string, value any) {
		if !sendableHeader(name) {
			m.unsendable.Inc()
			return
		}
		if p.Headers == nil {
			p.Headers = amqp.Table{}
		}
		p.Headers[name] = value
	}
	for key, value := range msg.Metadata {
		if transports.OfDelivery(key) {
			continue
		}
		if name, ok := strings.CutPrefix(key, transports.HeaderPrefix); ok {
			if _, own := msg.Metadata[name]; own && !transports.Property(name) {
				// The host has set the same key without the prefix. That value is sent instead.
				continue
			}
			if original, ok := typed[name]; ok && renderHeader(original) == value {
				header(name, original)
			} else {
				header(name, value)
			}
			continue
		}
		if !transports.Property(key) {
			header(key, value)
		} else if !m.setProperty(&p, key, value) {
			m.unsendable.Inc()
			header(key, value)
		}
	}
	if len(p.MessageId) > maxShortString {
		p.MessageId = uuid.NewString()
		m.unsendable.Inc()
	}
	m.dropLargest(&p, maxHeaders)
	return p, nil
}

// dropLargest drops the largest headers until the size of the rest is within the limit.
func (m *marshaler) dropLargest(p *amqp.Publishing, most int) {
	total := 0
	for name, value := range p.Headers {
		total += headerSize(name, value)
	}
	for total > most {
		name := largestHeader(p.Headers)
		total -= headerSize(name, p.Headers[name])
		delete(p.Headers, name)
		m.unsendable.Inc()
	}
}

// fitFrame drops headers until the properties and headers fit into one frame of the given size.
// The library would close the connection over a larger frame.
func (m *marshaler) fitFrame(p *amqp.Publishing, frame int) {
	// The frame's start and end, the class, the sizes, the flags, and the length of the headers.
	const around = frameStart + 1 + 14 + 4
	if frame == 0 {
		return // the broker allows any size
	}
	fixed := around + 1 + 1 + 8 // delivery mode, priority, timestamp
	for _, text := range [...]string{
		p.ContentType, p.ContentEncoding, p.CorrelationId, p.ReplyTo, p.Expiration, p.MessageId, p.Type, p.UserId, p.AppId,
	} {
		fixed += 1 + len(text)
	}
	m.dropLargest(p, frame-fixed)
}

// setProperty sets a property. It returns false if the broker or the library would close the
// channel because of the value.
func (m *marshaler) setProperty(p *amqp.Publishing, key, value string) bool {
	switch key {
	case transports.UserID:
		// The broker closes the channel of a message with another user.
		if value == m.user {
			p.UserId = value
		}
		return true
	case transports.Timestamp:
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil || t.Unix() < 0 {
			return false
		}
		p.Timestamp = t
		return true
	case transports.Priority:
		n, err := strconv.ParseUint(value, 10, 8)
		p.Priority = uint8(n)
		if err != nil {
			p.Priority = 0
		}
		return err == nil
	case transports.Expiration:
		if n, err := strconv.ParseUint(value, 10, 32); err != nil || strconv.FormatUint(n, 10) != value {
			return false
		}
	case transports.ReplyTo:
		if value == directReplyTo {
			return false
		}
	}
	if len(value) > maxShortString {
		return false
	}
	switch key {
	case transports.MessageID:
		if value != "" {
			p.MessageId = value
		}
	case transports.CorrelationID:
		p.CorrelationId = value
	case transports.ReplyTo:
		p.ReplyTo = value
	case transports.ContentType:
		p.ContentType = value
	case transports.ContentEncoding:
		p.ContentEncoding = value
	case transports.Expiration:
		p.Expiration = value
	case transports.Type:
		p.Type = value
	case transports.AppID:
		p.AppId = value
	}
	return true
}

// largestHeader returns the name of the largest header.
func largestHeader(headers amqp.Table) string {
	name, most := "", -1
	for key, value := range headers {
		if n := headerSize(key, value); n > most || n == most && key < name {
			name, most = key, n
		}
	}
	return name
}
