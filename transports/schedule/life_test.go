package schedule

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// The tests in this file are those of transporttest that apply to a clock. The suite itself can't
// be used, because it puts its own messages. A clock makes its messages itself, and has a window
// of one.

func TestCancelWithoutTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Hour}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		out := subscribe(ctx, t, subscriberOf(t, k, "a"))
		start(t, k)
		none(t, out)
		cancel()
		closed(t, out)
	})
}

func TestCancelHonoursAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second, Payload: "{n}"}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		s := subscriberOf(t, k, "a")
		out := subscribe(ctx, t, s)
		start(t, k)
		msg := <-out
		if _, err := s.Subscribe(t.Context(), "x"); err == nil {
			t.Error("a pipeline has two subscriptions of one topic")
		}
		cancel()
		none(t, out)
		if err := msg.Context().Err(); err != nil {
			t.Errorf("the message's context ended with Subscribe's: %v", err)
		}
		msg.Ack()
		closed(t, out)
		time.Sleep(time.Minute + time.Millisecond)
		next := <-subscribe(t.Context(), t, s)
		want(t, next, "62", "0") // a pipeline that isn't subscribed misses nothing
		next.Ack()
	})
}

func TestNackAfterCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Minute, Payload: "{n}"}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		s := subscriberOf(t, k, "a")
		out := subscribe(ctx, t, s)
		start(t, k)
		msg := <-out
		cancel()
		synctest.Wait()
		msg.Nack()
		closed(t, out)

		ctx, cancel = context.WithCancel(t.Context())
		out = subscribe(ctx, t, s)
		again := <-out
		want(t, again, "1", "0")
		if again.Metadata[transports.Redelivered] != "true" {
			t.Error("what comes again doesn't say so")
		}
		cancel()
		synctest.Wait()
		again.Nack()
		closed(t, out)

		time.Sleep(time.Minute) // a newer tick is due, and there is no subscriber
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		out = subscribe(ctx, t, s)
		none(t, out)
		next := <-out
		want(t, next, "3", "1")
		next.Ack()
	})
}

func TestCloseOfSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second, Payload: "{n}"}, nil)
		s := subscriberOf(t, k, "a")
		out := subscribe(t.Context(), t, s)
		other := subscribe(t.Context(), t, subscriberOf(t, k, "b"))
		start(t, k)
		msg := <-out
		for range 2 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		closed(t, out)
		if cause := context.Cause(msg.Context()); !errors.Is(cause, transports.ErrVoid) {
			t.Errorf("the message's context ended with %v, want ErrVoid", cause)
		}
		msg.Ack()
		if _, err := s.Subscribe(t.Context(), "x"); !errors.Is(err, transports.ErrClosed) {
			t.Errorf("Subscribe after Close: %v, want ErrClosed", err)
		}
		for _, payload := range []string{"1", "2"} {
			msg := <-other
			want(t, msg, payload, "0")
			msg.Ack()
		}
		// The pipeline's next subscriber begins with no tick.
		out = subscribe(t.Context(), t, subscriberOf(t, k, "a"))
		none(t, out)
		msg = <-out
		want(t, msg, "3", "0")
		msg.Ack()
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second}, nil)
		s := subscriberOf(t, k, "a")
		out := subscribe(t.Context(), t, s)
		start(t, k)
		if err := k.Health()[0].Err; err != nil {
			t.Errorf("a clock that runs isn't healthy: %v", err)
		}
		msg := <-out
		for range 2 {
			if err := k.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		closed(t, out)
		if cause := context.Cause(msg.Context()); !errors.Is(cause, transports.ErrVoid) {
			t.Errorf("the message's context ended with %v, want ErrVoid", cause)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		_, subscribed := s.Subscribe(t.Context(), "x")
		_, made := k.Subscriber(transports.Consumer{Pipeline: "b"})
		for act, err := range map[string]error{
			"Subscribe": subscribed, "Subscriber": made, "Start": k.Start(t.Context()), "Health": k.Health()[0].Err,
		} {
			if !errors.Is(err, transports.ErrClosed) {
				t.Errorf("%s after Close: %v, want ErrClosed", act, err)
			}
		}
	})
}

func TestOnlyConsumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second}, nil)
		if _, err := k.Publisher(transports.Producer{Pipeline: "p", Topic: "x"}); err == nil {
			t.Error("there is a publisher to a clock")
		}
		if _, err := subscriberOf(t, k, "a").Subscribe(t.Context(), "y"); err == nil {
			t.Error("a topic that isn't there can be subscribed to")
		}
	})
}

// TestStartedTwice checks that a clock that is started twice doesn't tick twice.
func TestStartedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := build(t, TopicConfig{Every: time.Second, Payload: "{n}"}, nil)
		out := consume(t, k)
		start(t, k)
		for _, payload := range []string{"1", "2"} {
			msg := <-out
			want(t, msg, payload, "0")
			msg.Ack()
		}
	})
}
