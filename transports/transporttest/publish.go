package transporttest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/transports"
)

// publisher returns a publisher, or nil for a topic that can't be published to.
func (f *fixture) publisher(pipeline string) message.Publisher {
	f.Helper()
	if _, err := f.config.Topic(f.h.Topic, transports.Produce); err != nil {
		f.Logf("nothing can be published to %s: %v", f.h.Topic, err)
		return nil
	}
	p, err := f.tr.Publisher(transports.Producer{Pipeline: pipeline})
	if err != nil {
		f.Fatalf("making a publisher for %s: %v", pipeline, err)
	}
	return p
}

func outgoing(payload string) *message.Message {
	id := uuid.NewString()
	msg := message.NewMessage(id, []byte(payload))
	msg.Metadata[transports.MessageID] = id
	return msg
}

func publish(f *fixture) {
	p := f.publisher("p")
	if p == nil {
		return
	}
	out := f.subscribe(f.Context(), f.subscriber("a"))
	sent := outgoing("one")
	want := map[string]string{
		transports.MessageID:               sent.UUID,
		transports.CorrelationID:           "c-1",
		transports.ContentType:             "text/plain",
		transports.Type:                    "test",
		transports.HeaderPrefix + "colour": "blue",
		transports.TraceParent:             "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	for key, value := range want {
		sent.Metadata[key] = value
	}
	if err := p.Publish(f.h.Topic, sent, outgoing("two"), outgoing("three")); err != nil {
		f.Fatalf("publishing: %v", err)
	}
	one := f.next(out, "one")
	for key, value := range want {
		if got := one.Metadata[key]; got != value {
			f.Errorf("metadata %s arrived as %q, want %q", key, got, value)
		}
	}
	f.ack(one, f.next(out, "two"), f.next(out, "three"))
}

func publishFromMany(f *fixture) {
	const publishers, each = 4, 50
	if f.publisher("p") == nil {
		return
	}
	out := f.subscribe(f.Context(), f.subscriber("a"))
	var running sync.WaitGroup
	for n := range publishers {
		p := f.publisher(fmt.Sprintf("p%d", n))
		running.Go(func() {
			for i := range each {
				if err := p.Publish(f.h.Topic, outgoing(fmt.Sprintf("%d %d", n, i))); err != nil {
					f.Errorf("publishing: %v", err)
					return
				}
			}
		})
	}
	var last [publishers]int
	for range publishers * each {
		msg := f.receive(out)
		var n, i int
		if _, err := fmt.Sscan(f.read(msg), &n, &i); err != nil {
			f.Fatalf("received %q: %v", f.read(msg), err)
		}
		if i != last[n] {
			f.Fatalf("publisher %d: received message %d, want %d", n, i, last[n])
		}
		last[n]++
		f.ack(msg)
	}
	f.within("Publish", running.Wait)
}

func publishWithDeadContext(f *fixture) {
	p := f.publisher("p")
	if p == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	msg := outgoing("dead")
	msg.SetContext(ctx)
	f.within("Publish", func() {
		if err := p.Publish(f.h.Topic, msg); err == nil {
			f.Error("Publish confirms a message whose context has ended")
		}
	})
}

func closeOfPublisher(f *fixture) {
	p := f.publisher("p")
	if p == nil {
		return
	}
	q := f.publisher("q")
	out := f.subscribe(f.Context(), f.subscriber("a"))
	for range 2 {
		f.within("Close", func() {
			if err := p.Close(); err != nil {
				f.Errorf("closing the publisher: %v", err)
			}
		})
	}
	if err := p.Publish(f.h.Topic, outgoing("one")); !errors.Is(err, transports.ErrClosed) {
		f.Errorf("Publish after Close: %v, want ErrClosed", err)
	}
	if err := q.Publish(f.h.Topic, outgoing("two")); err != nil {
		f.Fatalf("publishing after another pipeline's Close: %v", err)
	}
	f.ack(f.next(out, "two"))
}
