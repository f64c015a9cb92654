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

func (f *fixture) outgoing(payload string) *message.Message {
	f.sent[payload] = true
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
	sent := f.outgoing("one")
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
	if err := p.Publish(f.h.Topic, sent, f.outgoing("two"), f.outgoing("three")); err != nil {
		f.Fatalf("publishing: %v", err)
	}
	for _, payload := range []string{"one", "two", "three"} {
		msg := f.next(out, payload)
		for key, value := range want {
			if got := msg.Metadata[key]; got != value && f.read(msg) == "one" {
				f.Errorf("metadata %s arrived as %q, want %q", key, got, value)
			}
		}
		f.ack(msg)
	}
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
				msg := message.NewMessage(uuid.NewString(), fmt.Appendf(nil, "%d %d", n, i))
				if err := p.Publish(f.h.Topic, msg); err != nil {
					f.Errorf("publishing: %v", err)
					return
				}
			}
		})
	}
	var last [publishers]int
	seen := map[string]bool{}
	for range publishers * each {
		msg := f.receive(out)
		var n, i int
		if _, err := fmt.Sscan(f.read(msg), &n, &i); err != nil {
			f.Fatalf("received %q: %v", f.read(msg), err)
		}
		if i != last[n] && !f.h.Unordered {
			f.Fatalf("publisher %d: received message %d, want %d", n, i, last[n])
		}
		last[n]++
		if seen[f.read(msg)] {
			f.Fatalf("received %q twice", f.read(msg))
		}
		seen[f.read(msg)] = true
		f.ack(msg)
	}
	f.expectReturn("Publish", running.Wait)
}

func publishWithDeadContext(f *fixture) {
	p := f.publisher("p")
	if p == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	msg := f.outgoing("dead")
	msg.SetContext(ctx)
	f.expectReturn("Publish", func() {
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
		f.expectReturn("Close", func() {
			if err := p.Close(); err != nil {
				f.Errorf("closing the publisher: %v", err)
			}
		})
	}
	if err := p.Publish(f.h.Topic, f.outgoing("one")); !errors.Is(err, transports.ErrClosed) {
		f.Errorf("Publish after Close: %v, want ErrClosed", err)
	}
	if err := q.Publish(f.h.Topic, f.outgoing("two")); err != nil {
		f.Fatalf("publishing after another pipeline's Close: %v", err)
	}
	f.ack(f.next(out, "two"))
}
