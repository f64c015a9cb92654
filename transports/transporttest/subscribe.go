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
	unsettled := f.nextAll(out, sent[:n])
	f.expectNothing(out, "the window is full")

	// Any ack makes room, the newest as well as the oldest.
	f.ack(unsettled[n-1])
	unsettled[n-1] = f.next(out, sent[n])
	f.expectNothing(out, "one ack makes room for one")
	f.ack(unsettled[0])
	unsettled[0] = f.next(out, sent[n+1])
	f.ack(unsettled...)
	f.ack(f.next(out, sent[n+2]))
}

func cancelWithoutMessages(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	out := f.subscribe(ctx, f.subscriber("a"))
	f.expectNothing(out, "nothing was put")
	cancel()
	f.expectClosed(out)
}

func cancelHonoursAcks(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	s := f.subscriber("a")
	out := f.subscribe(ctx, s)
	sent := f.fewPayloads()
	f.put(sent...)
	unsettled := f.nextAll(out, sent)
	cancel()
	for _, msg := range slices.Backward(unsettled) {
		f.expectNothing(out, "a message is unsettled")
		f.ack(msg)
	}
	f.expectClosed(out)

	out = f.subscribe(f.Context(), s)
	f.put("more")
	// No acked message is redelivered.
	f.ack(f.next(out, "more"))
}

func nack(f *fixture) {
	out := f.subscribe(f.Context(), f.subscriber("a"))
	sent := f.fewPayloads()
	f.put(sent...)
	unsettled := f.nextAll(out, sent)
	middle := len(unsettled) / 2
	unsettled[middle].Nack()
	if f.h.Redelivers {
		unsettled[middle] = f.next(out, sent[middle])
		f.expectRedelivered(unsettled[middle])
	} else {
		f.expectNothing(out, "a nacked message isn't redelivered")
		unsettled = slices.Delete(unsettled, middle, middle+1)
	}
	f.ack(unsettled...)
}

// nackKeepsOrder checks that a nacked message comes before the messages that were put after it.
func nackKeepsOrder(f *fixture) {
	if !f.h.Redelivers || f.h.Unordered {
		f.Log("the transport keeps no order after a nack")
		return
	}
	out := f.subscribe(f.Context(), f.subscriber("a"))
	sent := numbered(f.topic.Window + 1)
	f.put(sent...)
	unsettled := f.nextAll(out, sent[:f.topic.Window])
	unsettled[0].Nack()
	unsettled[0] = f.next(out, sent[0])
	f.expectRedelivered(unsettled[0])
	f.ack(unsettled...)
	f.ack(f.next(out, sent[f.topic.Window]))
}

func nackAfterCancel(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	s := f.subscriber("a")
	out := f.subscribe(ctx, s)
	sent := f.fewPayloads()
	f.put(sent...)
	unsettled := f.nextAll(out, sent)
	cancel()
	// Nack all, the last one first, and ack the one in the middle.
	var back []string
	for i, msg := range slices.Backward(unsettled) {
		f.expectNothing(out, "a message is unsettled")
		if len(unsettled) > 1 && i == len(unsettled)/2 {
			f.ack(msg)
		} else {
			msg.Nack()
			back = append(back, sent[i])
		}
	}
	f.expectClosed(out)

	out = f.subscribe(f.Context(), s)
	if f.h.Returns {
		slices.Reverse(back)
		returned := f.nextUpTo(out, back)
		for _, msg := range returned {
			f.expectRedelivered(msg)
		}
	}
	f.put("more")
	f.ack(f.next(out, "more"))
}

// nextAll receives messages with the payloads want, and leaves them unsettled.
func (f *fixture) nextAll(out <-chan *message.Message, want []string) []*message.Message {
	f.Helper()
	unsettled := make([]*message.Message, len(want))
	for i := range want {
		unsettled[i] = f.next(out, want[i])
	}
	return unsettled
}

// nextUpTo receives messages like nextAll, and acks each of them at once.
func (f *fixture) nextUpTo(out <-chan *message.Message, want []string) []*message.Message {
	f.Helper()
	msgs := make([]*message.Message, len(want))
	for i := range want {
		msgs[i] = f.next(out, want[i])
		f.ack(msgs[i])
	}
	return msgs
}

func (f *fixture) expectRedelivered(msg *message.Message) {
	f.Helper()
	if msg.Metadata[transports.Redelivered] != "true" {
		f.Errorf("message %q is redelivered without the metadata redelivered", f.read(msg))
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
		f.expectClosed(out)
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
	f.expectNothing(out, "a message is unsettled")
	if err := msg.Context().Err(); err != nil {
		f.Errorf("the message's context ended with Subscribe's: %v", err)
	}
	f.ack(msg)
	f.expectClosed(out)
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
		f.expectReturn("Close", func() {
			if err := s.Close(); err != nil {
				f.Errorf("closing the subscriber: %v", err)
			}
		})
	}
	f.expectClosed(out)
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
