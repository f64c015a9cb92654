package http

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/transports"
)

func TestHungUpCallerVoidsTheMessage(t *testing.T) {
	s := start(t, func(c *Config) { c.Window = 1 })
	out := subscribe(t, s)
	ctx, hangUp := context.WithCancel(t.Context())
	res := async(ctx, s, "/x", "a")
	msg := <-out
	hangUp()
	<-res
	<-msg.Context.Done()
	if cause := context.Cause(msg.Context); !errors.Is(cause, transports.ErrVoid) {
		t.Errorf("the message's context ended with %v, want ErrVoid", cause)
	}

	// It holds no room in the window any more.
	res = async(t.Context(), s, "/x", "b")
	next := <-out
	next.Settle(handled)
	(<-res).expect(t, 200, "")
}

func TestHungUpCallerLeavesTheQueue(t *testing.T) {
	s := start(t, func(c *Config) { c.Window = 1 })
	out := subscribe(t, s)
	first := async(t.Context(), s, "/x", "first")
	msg := <-out
	ctx, hangUp := context.WithCancel(t.Context())
	second := async(ctx, s, "/x", "second")
	s.awaitArrival(t, "/x", 2)
	hangUp()
	<-second
	s.awaitState(t, "1 unsettled, 0 waiting")
	msg.Settle(handled)
	(<-first).expect(t, 200, "")
}

func TestRequestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startInBubble(t, func(c *Config) { c.Window, c.RequestTimeout = 1, 300*time.Millisecond })
		out := subscribe(t, s)
		first := async(t.Context(), s, "/x", "first")
		msg := <-out
		second := async(t.Context(), s, "/x", "second")
		(<-first).expect(t, 503, "undecided: repeat with the same id")
		(<-second).expect(t, 503, "not taken: too many messages")
		if err := msg.Context.Err(); err != nil {
			t.Errorf("the message that was handed out isn't left to the host: %v", err)
		}

		// Its place in the window is free once it is settled. The request that gave up isn't
		// delivered.
		msg.Settle(handled)
		third := async(t.Context(), s, "/x", "third")
		if msg = <-out; string(msg.Payload) != "third" {
			t.Errorf("received %s", msg.Payload)
		}
		msg.Settle(&transports.Outcome{Code: 200, Published: true})
		(<-third).expect(t, 202, "")
	})
}

func TestHandedBackIsUndecided(t *testing.T) {
	s := start(t, nil)
	out := subscribe(t, s)
	res := async(t.Context(), s, "/x", "a")
	(<-out).Settle(nil)
	(<-res).expect(t, 503, "undecided: repeat with the same id")
}

func TestWithoutConsumer(t *testing.T) {
	s := start(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	take := func(*transports.Delivery) { t.Error("received a message") }
	sub, done := consume(ctx, t, s, take)
	if _, err := sub.Subscribe(t.Context(), "/x", take); err == nil {
		t.Error("a path has two subscriptions")
	}
	cancel()
	<-done
	(<-async(t.Context(), s, "/x", "a")).expect(t, 503, "not taken: no pipeline")
}

func TestCancelRefusesTheQueue(t *testing.T) {
	s := start(t, func(c *Config) { c.Window = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := make(chan *transports.Delivery, room)
	_, done := consume(ctx, t, s, func(d *transports.Delivery) { out <- d })
	first := async(t.Context(), s, "/x", "first")
	msg := <-out
	second := async(t.Context(), s, "/x", "second")
	s.awaitArrival(t, "/x", 2)
	cancel()
	(<-second).expect(t, 503, "not taken: no pipeline")
	select {
	case <-done:
		t.Error("the subscription is done while a message is unsettled")
	default:
	}
	msg.Settle(handled)
	(<-first).expect(t, 200, "")
	<-done
}

func TestCloseOfSubscriberIsUndecided(t *testing.T) {
	s := start(t, nil)
	out := make(chan *transports.Delivery, room)
	sub, _ := consume(t.Context(), t, s, func(d *transports.Delivery) { out <- d })
	res := async(t.Context(), s, "/x", "a")
	msg := <-out
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	(<-res).expect(t, 503, "undecided")
	if !errors.Is(context.Cause(msg.Context), transports.ErrVoid) {
		t.Error("the message isn't void")
	}
}

func TestQuiesce(t *testing.T) {
	s := start(t, func(c *Config) { c.Window = 1 })
	out := subscribe(t, s)
	first := async(t.Context(), s, "/x", "first")
	msg := <-out
	second := async(t.Context(), s, "/x", "second")
	s.awaitArrival(t, "/x", 2)
	s.Quiesce()
	(<-second).expect(t, 503, "not taken: the host is stopping")
	third := <-async(t.Context(), s, "/x", "third")
	third.expect(t, 503, "not taken: the host is stopping")
	if !third.Close {
		t.Error("the connection stays open")
	}
	if s.Health()[0].Err == nil {
		t.Error("the listener says that it works")
	}
	msg.Settle(handled)
	(<-first).expect(t, 200, "")
}

func TestNotTakenHasNoIDButTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startInBubble(t, func(c *Config) { c.Window, c.RequestTimeout = 1, 300*time.Millisecond })
		out := subscribe(t, s)
		first := async(t.Context(), s, "/x", "first")
		msg := <-out
		if res := post(s, "/x", "second", nil); res.err != nil || res.StatusCode != 503 || res.body != `{"error":"not taken: too many messages wait before this one"}`+"\n" {
			t.Errorf("behind a full window: %+v", res)
		}
		(<-first).expect(t, 503, "undecided")
		s.Quiesce()
		if res := post(s, "/x", "third", nil); res.err != nil || res.StatusCode != 503 || res.body != `{"error":"not taken: the host is stopping"}`+"\n" {
			t.Errorf("at the stop: %+v", res)
		}
		msg.Settle(handled)
	})
}

func TestCloseIsUndecided(t *testing.T) {
	s := start(t, func(c *Config) { c.Window = 1 })
	out := subscribe(t, s)
	res := async(t.Context(), s, "/x", "a")
	msg := <-out
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	(<-res).expect(t, 503, "undecided")
	if !errors.Is(context.Cause(msg.Context), transports.ErrVoid) {
		t.Error("the message isn't void")
	}
	if _, err := s.Tap(t.Context(), "/x"); !errors.Is(err, transports.ErrClosed) {
		t.Errorf("Tap after Close: %v", err)
	}
}
