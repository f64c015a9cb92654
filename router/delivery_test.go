package router

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

func TestAVoidDeliveryIsForgottenAndItsCopyQueuesBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRecorder()
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			out, err := r.handle(msg)
			if err != nil && !errors.Is(err, transports.ErrVoid) {
				t.Errorf("the run ended with %v", err)
			}
			return out, err
		}))
		defer h.stop()
		h.in.send("a", "1")
		h.in.send("a", "2")
		synctest.Wait()
		h.in.cut(h.in.subs[0])
		pass(time.Second)
		equal(t, "started", r.starts(), []string{"1", "1"})
		if opened, _ := h.in.counts(); opened != 2 {
			t.Errorf("subscribed %d times", opened)
		}
		r.end("1", nil)
		r.end("2", nil)
		equal(t, "settled", h.in.settlements(), []string{"ack 1", "ack 2"})
		equal(t, "published", h.out.outputs(), []string{"results a 1", "results a 2"})
	})
}

func TestACopyTakesOverWhatWaitsForItsConfirm(t *testing.T) {
	for _, confirmFirst := range []bool{true, false} {
		t.Run(fmt.Sprint("confirmed before the copy comes ", confirmFirst), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRecorder()
				h := newHarness(t, handlerFunc(r.handle))
				defer h.stop()
				h.out.failPublishing(transports.ErrUndecided)
				h.in.send("a", "1")
				synctest.Wait()
				r.end("1", nil)
				h.in.cut(h.in.subs[0])
				if confirmFirst {
					h.out.failPublishing(nil)
					pass(5 * time.Second)
				} else {
					pass(5 * time.Second)
					h.out.failPublishing(nil)
					pass(5 * time.Second)
				}
				equal(t, "started", r.starts(), []string{"1"})
				equal(t, "published", h.out.outputs(), []string{"results a 1"})
				equal(t, "settled", h.in.settlements(), []string{"ack 1"})
			})
		})
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// stuck is a handler that never finishes messages of the key "stuck".
func stuck(msg *message.Message) ([]*message.Message, error) {
	if msg.Metadata.Get(transports.Device) != "stuck" {
		return nil, nil
	}
	<-msg.Context().Done()
	return nil, context.Cause(msg.Context())
}

func TestAStalledKeyIsRefusedAboveItsLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, refusingHandler{stuck}, lanesOf(func(l *Lanes) { l.Limit = 2 }))
		for i := range 5 {
			h.in.send("stuck", fmt.Sprint(i))
		}
		pass(4 * time.Second)
		if got := h.in.settlements(); len(got) != 0 {
			t.Errorf("refused before the stall time: %q", got)
		}
		pass(2 * time.Second)
		equal(t, "settled", sorted(h.in.settlements()), []string{"ack 3", "ack 4"})
		equal(t, "published", sorted(h.out.outputs()), []string{
			"results refused 3: " + string(handlers.ReasonStalled), "results refused 4: " + string(handlers.ReasonStalled),
		})
		h.in.send("stuck", "5")
		h.in.send("free", "6")
		synctest.Wait()
		equal(t, "settled", sorted(h.in.settlements()), []string{"ack 3", "ack 4", "ack 5", "ack 6"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Stop(ctx); err == nil || !strings.Contains(err.Error(), "pipeline test: 1 message was not settled in time, so the broker redelivers them") {
			t.Errorf("stop: %v", err)
		}
	})
}

func TestAKeyThatHoldsMuchIsStalledSooner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, refusingHandler{stuck}, lanesOf(func(l *Lanes) { l.Limit = 2 }))
		for i := range 7 {
			h.in.send("stuck", fmt.Sprint(i))
		}
		pass(time.Second)
		if got := h.in.settlements(); len(got) != 0 {
			t.Errorf("refused while most of the window is free: %q", got)
		}
		h.in.send("stuck", "7") // half of the window
		pass(time.Second)
		equal(t, "settled", sorted(h.in.settlements()), []string{"ack 3", "ack 4", "ack 5", "ack 6", "ack 7"})
		h.in.send("stuck", "8")
		pass(2 * time.Second)
		if got := h.in.settlements(); len(got) != 5 {
			t.Errorf("with twice its limit a key has the whole stall time: %q", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Stop(ctx); err == nil {
			t.Error("the stop was clean, but one message can't be settled")
		}
	})
}

func TestStalledKeysThatHoldHalfTheWindowAreRefusedWhole(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, refusingHandler{stuck}, lanesOf(func(l *Lanes) { l.Limit = 12 }))
		for i := range 8 {
			h.in.send("stuck", fmt.Sprint(i))
		}
		pass(6 * time.Second)
		if got := h.in.settlements(); len(got) != 7 {
			t.Errorf("settled %q", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = h.Stop(ctx)
	})
}

func TestWithoutRefusalAStalledKeyGetsBackpressure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, handlerFunc(stuck), lanesOf(func(l *Lanes) { l.Limit = 2 }))
		for i := range 8 {
			h.in.send("stuck", fmt.Sprint(i))
		}
		pass(time.Minute)
		if got := h.in.settlements(); len(got) != 0 {
			t.Errorf("settled %q", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = h.Stop(ctx)
	})
}

func TestWaitingForAConfirmIsNoStall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, refusingHandler{echo}, lanesOf(func(l *Lanes) { l.Limit = 1 }))
		defer h.stop()
		h.out.failPublishing(errBroken)
		for i := range 4 {
			h.in.send("a", fmt.Sprint(i))
		}
		pass(time.Minute)
		h.out.failPublishing(nil)
		pass(5 * time.Second)
		equal(t, "published", h.out.outputs(), []string{"results a 0", "results a 1", "results a 2", "results a 3"})
	})
}

func TestUnstartedMessagesPastTheAckDeadlineAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, refusingHandler{stuck}, lanesOf(func(l *Lanes) {
			l.Limit, l.Stall, l.AckDeadline = 8, time.Hour, time.Minute
		}), func(c *Config) { c.Transports[0].Config.(*fakeSystem).traits.Broker = false })
		h.in.send("stuck", "1")
		h.in.send("stuck", "2")
		pass(61 * time.Second)
		equal(t, "published", h.out.outputs(), []string{"results refused 2: " + string(handlers.ReasonAckDeadline)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = h.Stop(ctx)
	})
}

func TestAStartedMessagePastTheAckDeadlineGoesOnAndItsCopyTakesItOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRecorder()
		h := newHarness(t, handlerFunc(r.handle), lanesOf(func(l *Lanes) { l.AckDeadline = time.Minute }))
		defer h.stop()
		h.in.send("a", "1")
		h.in.send("a", "2")
		pass(3*time.Minute + time.Second)
		equal(t, "started", r.starts(), []string{"1"})
		if opened, _ := h.in.counts(); opened < 3 {
			t.Errorf("the subscription was given back %d times in 3 minutes", opened-1)
		}
		r.end("1", nil)
		r.end("2", nil)
		equal(t, "settled", h.in.settlements(), []string{"ack 1", "ack 2"})
		equal(t, "started", r.starts(), []string{"1", "2"})
	})
}

// A broker may count how often it delivers a message, and drop it at its delivery limit. So even a
// long pause must not cause more redeliveries than the ack deadline does.
func TestAPauseGivesMessagesBackOnlyAtTheAckDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		var handled []string // one after the other, as they have one key
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			if down.Load() {
				return nil, handlers.Unavailable(errBroken)
			}
			handled = append(handled, msg.Metadata.Get(transports.MessageID))
			return nil, nil
		}))
		defer h.stop()
		for i := range 3 {
			h.in.send("a", fmt.Sprint(i))
		}
		pass(DefaultLanes.AckDeadline - time.Minute)
		if opened, _ := h.in.counts(); opened != 1 {
			t.Errorf("subscribed %d times before the ack deadline", opened)
		}
		pass(4 * DefaultLanes.AckDeadline)
		if opened, _ := h.in.counts(); opened != 5 {
			t.Errorf("subscribed %d times in a pause of almost five ack deadlines", opened)
		}
		down.Store(false)
		pass(time.Minute)
		equal(t, "handled", handled, []string{"0", "1", "2"})
		equal(t, "settled", sorted(h.in.settlements()), []string{"ack 0", "ack 1", "ack 2"})
	})
}

func TestStopSettlesWhatIsStartedAndLeavesTheRest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRecorder()
		h := newHarness(t, handlerFunc(r.handle))
		h.in.send("a", "1")
		h.in.send("a", "2")
		h.in.send("b", "3")
		synctest.Wait()
		stopped := make(chan error)
		go func() { stopped <- h.Stop(context.Background()) }()
		synctest.Wait()
		equal(t, "settled", h.in.settlements(), []string{"nack 2"})
		if !h.in.quiesced {
			t.Error("the transport wasn't told to take nothing new")
		}
		r.end("3", nil)
		select {
		case err := <-stopped:
			t.Fatalf("stopped with a message running: %v", err)
		default:
		}
		r.end("1", nil)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		equal(t, "settled", h.in.settlements(), []string{"nack 2", "ack 3", "ack 1"})
		equal(t, "started", sorted(r.starts()), []string{"1", "3"})
	})
}

func TestAtTheDeadlineRunsAreCancelledAndNotRunAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRecorder()
		h := newHarness(t, handlerFunc(r.handle))
		h.in.send("a", "1")
		h.in.send("b", "2")
		synctest.Wait()
		h.out.failPublishing(errBroken)
		r.end("2", nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		err := h.Stop(ctx)
		if err == nil || !strings.Contains(err.Error(), "pipeline test: 2 messages were not settled in time, so the broker redelivers them; publishing to out:results since") {
			t.Errorf("stop: %v", err)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		if got := h.in.settlements(); len(got) != 2 || strings.Contains(fmt.Sprint(got), "ack 1") && !strings.Contains(fmt.Sprint(got), "nack 1") {
			t.Errorf("settled %q", got)
		}
		equal(t, "started", sorted(r.starts()), []string{"1", "2"})
	})
}

func TestAFeederIsEmptiedBeforeWhatItFeeds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		first, between, out := newSystem(16), newSystem(16), newSystem(16)
		between.traits.Broker = false
		r := newRecorder()
		c := Config{Name: "host", Transports: []Transport{{Name: "in", Config: first}, {Name: "out", Config: out}, {Name: "mid", Config: relay{draining{between}}}}}
		c.Pipelines = []Pipeline{
			{Name: "second", From: "mid:x", To: "out:x", Handler: Handler{Config: handlerFunc(echo)}, Lanes: DefaultLanes, DropErrors: true},
			{Name: "first", From: "in:x", To: "mid:x", Handler: Handler{Config: handlerFunc(r.handle)}, Lanes: DefaultLanes, DropErrors: true},
		}
		h, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		first.send("a", "1")
		synctest.Wait()
		stopped := make(chan error)
		go func() { stopped <- h.Stop(context.Background()) }()
		synctest.Wait()
		r.end("1", nil)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		equal(t, "out", out.outputs(), []string{"x a 1"})
	})
}

// relay delivers the messages that are published to it.
type relay struct{ draining }

func (r relay) New(transports.Env) (transports.Transport, error) { return r, nil }

func (r relay) Publisher(transports.Producer) (message.Publisher, error) {
	return relayPublisher(r), nil
}

type relayPublisher struct{ draining }

func (r relayPublisher) Publish(_ string, msgs ...*message.Message) error {
	for _, msg := range msgs {
		in := newSent(string(msg.Payload))
		in.Metadata = maps.Clone(msg.Metadata)
		r.put(in)
	}
	return nil
}

func (r relayPublisher) Close() error { return nil }

// The ack waits for the hooks of handlers.OnConfirmed. If they fail until the deadline of a stop,
// the message stays with its source.
func TestTheAckWaitsForWhatIsToBeRecordedBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		recorded := make(chan error)
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			handlers.OnConfirmed(msg.Context(), func(ctx context.Context) error {
				select {
				case err := <-recorded:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			return []*message.Message{handlers.NewMessage(nil)}, nil
		}))
		h.in.send("a", "1")
		synctest.Wait()
		if _, published := h.out.counts(); published != 1 || len(h.in.settlements()) != 0 {
			t.Errorf("%d outputs published, settled %q", published, h.in.settlements())
		}
		recorded <- nil
		synctest.Wait()
		equal(t, "settled", h.in.settlements(), []string{"ack 1"})
		h.in.send("a", "2")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		synctest.Wait()
		if err := h.Stop(ctx); err == nil {
			t.Error("a stop that left a message unsettled is called clean")
		}
		equal(t, "settled", h.in.settlements(), []string{"ack 1", "nack 2"})
	})
}
