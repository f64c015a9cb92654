package transporttest

import (
	"context"
	"maps"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// Stock makes a plain Watermill Subscriber from a transport's. Its messages are settled with Ack
// and Nack. Watermill's own tests of a Pub/Sub can test it.
func Stock(s transports.Subscriber) message.Subscriber { return stock{s} }

type stock struct{ transports.Subscriber }

// Subscribe implements message.Subscriber. The channel closes when the subscription is done.
func (s stock) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	q := &queue{more: make(chan struct{}, 1)}
	done, err := s.Subscriber.Subscribe(ctx, topic, q.put)
	if err != nil {
		return nil, err
	}
	go q.passOn(ctx, out, done)
	return out, nil
}

// queue stores deliveries between a transport, which doesn't wait, and the reader of a channel.
type queue struct {
	more chan struct{}

	mu         sync.Mutex
	deliveries []*transports.Delivery
}

func (q *queue) put(d *transports.Delivery) {
	q.mu.Lock()
	q.deliveries = append(q.deliveries, d)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *queue) take() *transports.Delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.deliveries) == 0 {
		return nil
	}
	d := q.deliveries[0]
	q.deliveries = q.deliveries[1:]
	return d
}

// passOn sends messages to the reader until the subscription is done, and then closes the channel.
// It nacks messages that the reader hasn't received when ctx ends.
func (q *queue) passOn(ctx context.Context, out chan<- *message.Message, done <-chan struct{}) {
	defer close(out)
	for {
		d := q.take()
		if d == nil {
			select {
			case <-q.more:
				continue
			case <-done:
				return
			}
		}
		msg := message.NewMessage(d.UUID, d.Payload)
		maps.Copy(msg.Metadata, d.Metadata)
		msg.SetContext(transports.WithExtra(d.Context, &transports.Extra{Headers: d.Headers}))
		go settle(d, msg)
		if ctx.Err() != nil {
			msg.Nack()
			continue
		}
		select {
		case out <- msg:
		case <-ctx.Done():
			msg.Nack()
		case <-d.Context.Done():
		case <-done:
			return
		}
	}
}

// settle settles the delivery when the message is acked or nacked. If the delivery becomes void
// first, settle returns without settling it.
func settle(d *transports.Delivery, msg *message.Message) {
	select {
	case <-msg.Acked():
		d.Settle(&transports.Outcome{Code: 200, ID: msg.Metadata[transports.MessageID]})
	case <-msg.Nacked():
		d.Settle(nil)
	case <-d.Context.Done():
	}
}
