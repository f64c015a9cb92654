package transporttest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// numbered returns n payloads.
func numbered(n int) []string {
	payloads := make([]string, n)
	for i := range payloads {
		payloads[i] = fmt.Sprintf("message-%d", i)
	}
	return payloads
}

func orderWithoutAcks(f *fixture) {
	out := f.subscribe(f.Context(), f.subscriber("a"))
	sent := numbered(f.topic.Window)
	f.put(sent...)
	f.ack(f.nextAll(out, sent)...)
}

func window(f *fixture) {
	n := f.topic.Window
	out := f.subscribe(f.Context(), f.subscriber("a"))
	sent := numbered(n + 3)
	f.put(sent...)
	held := f.nextAll(out, sent[:n])
	f.none(out, "the window is full")

	// Any ack makes room, the newest as well as the oldest.
	f.ack(held[n-1])
	held[n-1] = f.next(out, sent[n])
	f.none(out, "one ack makes room for one")
	f.ack(held[0])
	held[0] = f.next(out, sent[n+1])
	f.ack(held...)
	f.ack(f.next(out, sent[n+2]))
}

func cancelWithoutMessages(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	out := f.subscribe(ctx, f.subscriber("a"))
	f.none(out, "nothing was put")
	cancel()
	f.closed(out)
}

func cancelHonoursAcks(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	s := f.subscriber("a")
	out := f.subscribe(ctx, s)
	sent := f.few()
	f.put(sent...)
	held := f.nextAll(out, sent)
	cancel()
	for _, msg := range slices.Backward(held) {
		f.none(out, "a message is unsettled")
		f.ack(msg)
	}
	f.closed(out)

	out = f.subscribe(f.Context(), s)
	f.put("more")
	// None of the acked ones comes again.
	f.ack(f.next(out, "more"))
}

func nack(f *fixture) {
	out := f.subscribe(f.Context(), f.subscriber("a"))
	sent := f.few()
	f.put(sent...)
	held := f.nextAll(out, sent)
	middle := len(held) / 2
	held[middle].Nack()
	if f.h.Redelivers {
		held[middle] = f.next(out, sent[middle])
		f.redelivered(held[middle])
	} else {
		f.none(out, "a nacked message isn't handed out again")
		held = slices.Delete(held, middle, middle+1)
	}
	f.ack(held...)
}

// nackKeepsOrder holds that what was handed back comes before what was put behind it.
func nackKeepsOrder(f *fixture) {
	if !f.h.Redelivers || f.h.Unordered {
		f.Log("the transport keeps no order after a nack")
		return
	}
	out := f.subscribe(f.Context(), f.subscriber("a"))
	sent := numbered(f.topic.Window + 1)
	f.put(sent...)
	held := f.nextAll(out, sent[:f.topic.Window])
	held[0].Nack()
	held[0] = f.next(out, sent[0])
	f.redelivered(held[0])
	f.ack(held...)
	f.ack(f.next(out, sent[f.topic.Window]))
}

func nackAfterCancel(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	s := f.subscriber("a")
	out := f.subscribe(ctx, s)
	sent := f.few()
	f.put(sent...)
	held := f.nextAll(out, sent)
	cancel()
	// All go back, the last one first, but for the one in the middle.
	var back []string
	for i, msg := range slices.Backward(held) {
		f.none(out, "a message is unsettled")
		if len(held) > 1 && i == len(held)/2 {
			f.ack(msg)
		} else {
			msg.Nack()
			back = append(back, sent[i])
		}
	}
	f.closed(out)

	out = f.subscribe(f.Context(), s)
	if f.h.Returns {
		slices.Reverse(back)
		again := f.nextUpTo(out, back)
		for _, msg := range again {
			f.redelivered(msg)
		}
	}
	f.put("more")
	f.ack(f.next(out, "more"))
}

// nextAll receives messages that Put gave as want, and leaves them unsettled.
func (f *fixture) nextAll(out <-chan *message.Message, want []string) []*message.Message {
	f.Helper()
	held := make([]*message.Message, len(want))
	for i := range want {
		held[i] = f.next(out, want[i])
	}
	return held
}

// nextUpTo receives messages like nextAll, and acks each at once.
func (f *fixture) nextUpTo(out <-chan *message.Message, want []string) []*message.Message {
	f.Helper()
	msgs := make([]*message.Message, len(want))
	for i := range want {
		msgs[i] = f.next(out, want[i])
		f.ack(msgs[i])
	}
	return msgs
}

func (f *fixture) redelivered(msg *message.Message) {
	f.Helper()
	if msg.Metadata[transports.Redelivered] != "true" {
		f.Errorf("message %q is handed out again without saying so in its metadata", f.read(msg))
	}
}

func subscribeAgain(f *fixture) {
	s := f.subscriber("a")
	for i := range 3 {
		ctx, cancel := context.WithCancel(f.Context())
		out := f.subscribe(ctx, s)
		want := fmt.Sprintf("message-%d", i)
		f.put(want)
		f.ack(f.next(out, want))
		cancel()
		f.closed(out)
	}
}

type contextKey struct{}

func messageContexts(f *fixture) {
	ctx, cancel := context.WithCancel(context.WithValue(f.Context(), contextKey{}, true))
	defer cancel()
	out := f.subscribe(ctx, f.subscriber("a"))
	f.put("one")
	msg := f.next(out, "one")
	if msg.Context().Value(contextKey{}) != nil {
		f.Error("the message's context is derived from Subscribe's")
	}
	cancel()
	f.none(out, "a message is unsettled")
	if err := msg.Context().Err(); err != nil {
		f.Errorf("the message's context ended with Subscribe's: %v", err)
	}
	f.ack(msg)
	f.closed(out)
}

func closeOfSubscriber(f *fixture) {
	s := f.subscriber("a")
	out := f.subscribe(f.Context(), s)
	other := out
	if f.topic.Stream == "" {
		other = f.subscribe(f.Context(), f.subscriber("b"))
	}
	f.put("one")
	one := f.next(out, "one")
	for range 2 {
		f.within("Close", func() {
			if err := s.Close(); err != nil {
				f.Errorf("closing the subscriber: %v", err)
			}
		})
	}
	f.closed(out)
	one.Ack()
	if _, err := s.Subscribe(f.Context(), f.h.Topic); !errors.Is(err, transports.ErrClosed) {
		f.Errorf("Subscribe after Close: %v, want ErrClosed", err)
	}

	if f.topic.Stream == "" {
		f.ack(f.next(other, "one"))
	} else {
		// The stream has one consumer at a time, so the next one takes over.
		other = f.subscribe(f.Context(), f.subscriber("a"))
	}
	f.put("two")
	for {
		msg := f.receive(other)
		f.ack(msg)
		if f.read(msg) == "two" {
			break
		}
	}
}

func twoConsumers(f *fixture) {
	if f.topic.Stream != "" {
		f.Logf("the consumers of one stream share its messages: %s", f.topic.Stream)
		return
	}
	a, b := f.subscribe(f.Context(), f.subscriber("a")), f.subscribe(f.Context(), f.subscriber("b"))
	sent := numbered(f.topic.Window)
	f.put(sent...)
	for _, want := range sent {
		f.ack(f.next(a, want))
	}
	for _, want := range sent {
		f.ack(f.next(b, want))
	}
}
