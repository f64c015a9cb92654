package transporttest

import (
	"context"
	"time"

	"github.com/pentrough/pentrough/transports"
)

func health(f *fixture) {
	parts := f.tr.Health()
	if len(parts) == 0 {
		f.Fatal("a started transport has no part")
	}
	seen := map[string]bool{}
	for _, h := range parts {
		if h.Part == "" || seen[h.Part] {
			f.Errorf("part %q has no name of its own", h.Part)
		}
		seen[h.Part] = true
	}
}

func quiesce(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	out := f.subscribe(ctx, f.subscriber("a"))
	f.put("one")
	one := f.next(out, "one")
	for range 2 {
		f.expectReturn("Quiesce", f.tr.Quiesce)
	}
	if err := one.Context().Err(); err != nil {
		f.Errorf("Quiesce ended a message's context: %v", err)
	}
	f.expectNothing(out, "nothing was put, and a message is unsettled")
	f.ack(one)
	cancel()
	f.expectClosed(out)
}

func drain(f *fixture) {
	d, ok := f.tr.(transports.Drainer)
	if !ok {
		f.Log("the transport isn't a Drainer")
		return
	}
	s := f.subscriber("a")
	out := f.subscribe(f.Context(), s)
	f.put("one", "two")
	one := f.next(out, "one")
	f.expectReturn("Drain", func() { d.Drain(f.h.Topic) })
	f.ack(one, f.next(out, "two"))
	f.expectClosed(out)
}

func tap(f *fixture) {
	tapper, ok := f.tr.(transports.Tapper)
	if !ok {
		f.Log("the transport's topics can't be tapped")
		return
	}
	out := f.subscribe(f.Context(), f.subscriber("a"))
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	tapped, err := tapper.Tap(ctx, f.h.Topic)
	if err != nil {
		f.Fatalf("tapping: %v", err)
	}
	f.put("one")
	// The tap must get a copy, also if it gets the message before the consumer.
	copied := f.next(tapped, "one")
	msg := f.next(out, "one")
	if msg == copied {
		f.Error("the tap has the consumer's message, not a copy")
	}
	f.ack(msg)
	cancel()
	f.expectClosed(tapped)
}

func closing(f *fixture) {
	s := f.subscriber("a")
	p := f.publisher("p")
	out := f.subscribe(f.Context(), s)
	f.put("one")
	one := f.next(out, "one")
	for range 2 {
		f.expectReturn("Close", f.close)
	}
	f.expectClosed(out)
	one.Ack()
	if _, err := s.Subscribe(f.Context(), f.h.Topic); err == nil {
		f.Error("Subscribe works after Close")
	}
	if p != nil {
		ctx, cancel := context.WithTimeout(f.Context(), time.Second)
		defer cancel()
		msg := f.outgoing("two")
		msg.SetContext(ctx)
		f.expectReturn("Publish", func() {
			if err := p.Publish(f.h.Topic, msg); err == nil {
				f.Error("Publish works after Close")
			}
		})
	}
	f.expectReturn("closing the subscriber", func() {
		if err := s.Close(); err != nil {
			f.Errorf("closing the subscriber after the transport: %v", err)
		}
	})
}
