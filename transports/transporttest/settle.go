package transporttest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// The tests in this file use deliveries directly, without the stock subscriber between the
// transport and the test.

// handled returns the outcome of a message that is acked.
func handled() *transports.Outcome { return &transports.Outcome{Code: 200} }

// subscribeDirectly subscribes as the host does. It calls take, which may be nil, with each
// delivery, before the transport's call returns.
func (f *fixture) subscribeDirectly(ctx context.Context, s transports.Subscriber, take func(*transports.Delivery)) (<-chan *transports.Delivery, <-chan struct{}) {
	f.Helper()
	out := make(chan *transports.Delivery, 10*maxWindow)
	done, err := s.Subscribe(ctx, f.h.Topic, func(d *transports.Delivery) {
		if take != nil {
			take(d)
		}
		select {
		case out <- d:
		default:
			f.Errorf("more than %d deliveries", cap(out))
		}
	})
	if err != nil {
		f.Fatalf("subscribing to %s: %v", f.h.Topic, err)
	}
	return out, done
}

// delivery receives a delivery with the payload want.
func (f *fixture) delivery(out <-chan *transports.Delivery, want string) *transports.Delivery {
	f.Helper()
	select {
	case d := <-out:
		f.expect(f.read(d.Message()), want)
		return d
	case <-time.After(patience):
		f.Fatalf("waited %s for %q; %s", patience, want, f.describeState())
	}
	return nil
}

func (f *fixture) expectNoDelivery(out <-chan *transports.Delivery, why string) {
	f.Helper()
	select {
	case d := <-out:
		f.Fatalf("received %q: %s", f.read(d.Message()), why)
	case <-time.After(quiet):
	}
}

// settleInTake settles each delivery inside the call of take.
func settleInTake(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	out, done := f.subscribeDirectly(ctx, f.hostSubscriber("a"), func(d *transports.Delivery) { d.Settle(handled()) })
	sent := numbered(f.topic.Window + 3)
	f.put(sent...)
	for _, want := range sent {
		f.delivery(out, want)
	}
	cancel()
	f.expectReturn("the subscription", func() { <-done })
}

// settleTwice checks that only the first settlement of a delivery counts, and that it makes room
// in the window once.
func settleTwice(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	out, done := f.subscribeDirectly(ctx, f.hostSubscriber("a"), nil)
	n := f.topic.Window
	sent := numbered(n + 2)
	f.put(sent...)
	var unsettled []*transports.Delivery
	for _, want := range sent[:n] {
		unsettled = append(unsettled, f.delivery(out, want))
	}
	for _, o := range []*transports.Outcome{handled(), nil, handled()} {
		unsettled[n/2].Settle(o)
	}
	unsettled = append(unsettled, f.delivery(out, sent[n]))
	f.expectNoDelivery(out, "a delivery that is settled twice makes room for one")
	for _, d := range unsettled {
		d.Settle(handled())
	}
	f.delivery(out, sent[n+1]).Settle(handled())
	f.expectNoDelivery(out, "all are acked")
	cancel()
	f.expectReturn("the subscription", func() { <-done })
}

// settleStale checks that settling a delivery a second time has no effect on the redelivered
// message.
func settleStale(f *fixture) {
	if !f.h.Redelivers {
		f.Log("the transport doesn't redeliver nacked messages")
		return
	}
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	s := f.hostSubscriber("a")
	out, done := f.subscribeDirectly(ctx, s, nil)
	f.put("one")
	first := f.delivery(out, "one")
	first.Settle(nil)
	second := f.delivery(out, "one")
	first.Settle(handled())
	first.Settle(nil)
	f.expectNoDelivery(out, "the redelivered message was settled by the old delivery")
	cancel()
	select {
	case <-done:
		f.Fatal("the subscription is done, and a delivery is unsettled")
	case <-time.After(quiet):
	}
	second.Settle(handled())
	f.expectReturn("the subscription", func() { <-done })
}

// settleVoid checks that settling a void delivery has no effect: a broker redelivers the message.
func settleVoid(f *fixture) {
	s := f.hostSubscriber("a")
	out, done := f.subscribeDirectly(f.Context(), s, nil)
	sent := f.fewPayloads()
	f.put(sent...)
	var unsettled []*transports.Delivery
	for _, want := range sent {
		unsettled = append(unsettled, f.delivery(out, want))
	}
	f.expectReturn("Close", func() {
		if err := s.Close(); err != nil {
			f.Errorf("closing the subscriber: %v", err)
		}
	})
	f.expectReturn("the subscription", func() { <-done })
	for i, d := range unsettled {
		outcomes := []*transports.Outcome{handled(), nil}
		f.expectReturn("the delivery's context", func() { <-d.Context.Done() })
		if cause := context.Cause(d.Context); !errors.Is(cause, transports.ErrVoid) {
			f.Errorf("the delivery's context ended with %v, want ErrVoid", cause)
		}
		f.expectReturn("Settle", func() {
			d.Settle(outcomes[i%2])
			d.Settle(outcomes[(i+1)%2])
		})
	}
	if !f.topic.Broker {
		return
	}
	out, _ = f.subscribeDirectly(f.Context(), f.hostSubscriber("a"), nil)
	for _, want := range sent {
		f.delivery(out, want).Settle(handled())
	}
}

// settleDuringClose settles deliveries while the subscriber is being closed. It checks that
// nothing is delivered after Close.
func settleDuringClose(f *fixture) {
	s := f.hostSubscriber("a")
	var over atomic.Bool
	out, done := f.subscribeDirectly(f.Context(), s, func(d *transports.Delivery) {
		if over.Load() {
			f.Errorf("%q is delivered after Close", f.read(d.Message()))
		}
	})
	sent := numbered(f.topic.Window)
	f.put(sent...)
	var unsettled []*transports.Delivery
	for _, want := range sent {
		unsettled = append(unsettled, f.delivery(out, want))
	}
	var settling sync.WaitGroup
	for i, d := range unsettled {
		settling.Go(func() {
			if i%2 == 0 {
				d.Settle(nil)
			} else {
				d.Settle(handled())
			}
		})
	}
	f.expectReturn("Close", func() {
		if err := s.Close(); err != nil {
			f.Errorf("closing the subscriber: %v", err)
		}
		over.Store(true)
	})
	f.expectReturn("Settle", settling.Wait)
	f.expectReturn("the subscription", func() { <-done })
}
