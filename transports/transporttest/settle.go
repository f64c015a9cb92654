package transporttest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// What follows looks at deliveries themselves, without the stock subscriber between the transport
// and the test.

// handled settles a delivery for good.
func handled() *transports.Outcome { return &transports.Outcome{Code: 200} }

// direct subscribes as the host does. It calls take, which may be nil, with each delivery while
// that is handed out.
func (f *fixture) direct(ctx context.Context, s transports.Subscriber, take func(*transports.Delivery)) (<-chan *transports.Delivery, <-chan struct{}) {
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

// delivery receives the delivery that Put gave as want.
func (f *fixture) delivery(out <-chan *transports.Delivery, want string) *transports.Delivery {
	f.Helper()
	select {
	case d := <-out:
		f.expect(f.read(d.Message()), want)
		return d
	case <-time.After(patience):
		f.Fatalf("waited %s for %q; %s", patience, want, f.state())
	}
	return nil
}

func (f *fixture) noDelivery(out <-chan *transports.Delivery, why string) {
	f.Helper()
	select {
	case d := <-out:
		f.Fatalf("received %q: %s", f.read(d.Message()), why)
	case <-time.After(quiet):
	}
}

// settleInTake settles each delivery while it is being handed out.
func settleInTake(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	out, done := f.direct(ctx, f.own("a"), func(d *transports.Delivery) { d.Settle(handled()) })
	sent := numbered(f.topic.Window + 3)
	f.put(sent...)
	for _, want := range sent {
		f.delivery(out, want)
	}
	cancel()
	f.within("the subscription", func() { <-done })
}

// settleTwice holds that a delivery makes room in the window once, and that what was settled first
// counts.
func settleTwice(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	out, done := f.direct(ctx, f.own("a"), nil)
	n := f.topic.Window
	sent := numbered(n + 2)
	f.put(sent...)
	var held []*transports.Delivery
	for _, want := range sent[:n] {
		held = append(held, f.delivery(out, want))
	}
	for _, o := range []*transports.Outcome{handled(), nil, handled()} {
		held[n/2].Settle(o)
	}
	held = append(held, f.delivery(out, sent[n]))
	f.noDelivery(out, "what is settled twice makes room for one")
	for _, d := range held {
		d.Settle(handled())
	}
	f.delivery(out, sent[n+1]).Settle(handled())
	f.noDelivery(out, "all are settled for good")
	cancel()
	f.within("the subscription", func() { <-done })
}

// settleStale holds that settling a delivery again has no effect on the redelivered one.
func settleStale(f *fixture) {
	if !f.h.Redelivers {
		f.Log("the transport doesn't hand out again what is handed back")
		return
	}
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	s := f.own("a")
	out, done := f.direct(ctx, s, nil)
	f.put("one")
	first := f.delivery(out, "one")
	first.Settle(nil)
	second := f.delivery(out, "one")
	first.Settle(handled())
	first.Settle(nil)
	f.noDelivery(out, "what was handed back was settled by that")
	cancel()
	select {
	case <-done:
		f.Fatal("the subscription is done, and a delivery is unsettled")
	case <-time.After(quiet):
	}
	second.Settle(handled())
	f.within("the subscription", func() { <-done })
}

// settleVoid holds that settling what became void has no effect: a broker delivers it again.
func settleVoid(f *fixture) {
	s := f.own("a")
	out, done := f.direct(f.Context(), s, nil)
	sent := f.few()
	f.put(sent...)
	var held []*transports.Delivery
	for _, want := range sent {
		held = append(held, f.delivery(out, want))
	}
	f.within("Close", func() {
		if err := s.Close(); err != nil {
			f.Errorf("closing the subscriber: %v", err)
		}
	})
	f.within("the subscription", func() { <-done })
	for i, d := range held {
		outcomes := []*transports.Outcome{handled(), nil}
		f.within("the delivery's context", func() { <-d.Context.Done() })
		if cause := context.Cause(d.Context); !errors.Is(cause, transports.ErrVoid) {
			f.Errorf("the delivery's context ended with %v, want ErrVoid", cause)
		}
		f.within("Settle", func() {
			d.Settle(outcomes[i%2])
			d.Settle(outcomes[(i+1)%2])
		})
	}
	if !f.topic.Broker {
		return
	}
	out, _ = f.direct(f.Context(), f.own("a"), nil)
	for _, want := range sent {
		f.delivery(out, want).Settle(handled())
	}
}

// settleDuringClose settles while the subscriber is closed, and holds that nothing is handed out
// after that.
func settleDuringClose(f *fixture) {
	s := f.own("a")
	var over atomic.Bool
	out, done := f.direct(f.Context(), s, func(d *transports.Delivery) {
		if over.Load() {
			f.Errorf("%q is handed out after Close", f.read(d.Message()))
		}
	})
	sent := numbered(f.topic.Window)
	f.put(sent...)
	var held []*transports.Delivery
	for _, want := range sent {
		held = append(held, f.delivery(out, want))
	}
	var settling sync.WaitGroup
	for i, d := range held {
		settling.Go(func() {
			if i%2 == 0 {
				d.Settle(nil)
			} else {
				d.Settle(handled())
			}
		})
	}
	f.within("Close", func() {
		if err := s.Close(); err != nil {
			f.Errorf("closing the subscriber: %v", err)
		}
		over.Store(true)
	})
	f.within("Settle", settling.Wait)
	f.within("the subscription", func() { <-done })
}
