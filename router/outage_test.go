package router

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// failing is a handler whose dependency is down until the test changes that.
type failing struct {
	recorder
	up atomic.Bool
}

func (f *failing) handle(msg *message.Message) ([]*message.Message, error) {
	f.mu.Lock()
	f.started = append(f.started, msg.Metadata.Get(transports.MessageID))
	f.mu.Unlock()
	if f.up.Load() {
		return nil, nil
	}
	return nil, handlers.Unavailable(errBroken)
}

// callers makes the source one whose callers can't wait, and that never redelivers, such as http.
func callers(c *Config) {
	traits := &c.Transports[0].Config.(*fakeSystem).traits
	traits.Broker, traits.Impatient = false, true
}

func TestAPauseEndsThoughTheSubscriptionWasGivenBackWithoutAProbe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &failing{}
		release := make(chan struct{})
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			if msg.Metadata.Get(transports.MessageID) != "slow" {
				return f.handle(msg)
			}
			handlers.Enqueued(msg.Context())
			<-release
			return nil, nil
		}), lanesOf(func(l *Lanes) { l.AckDeadline = 10 * time.Second }))
		defer h.stop()
		h.in.send("a", "slow")
		synctest.Wait()
		h.in.send("a", "behind") // waits for slow after its nack, so that no probe can start
		pass(time.Second)
		f.up.Store(true)
		pass(15 * time.Second) // beyond slow's ack deadline
		close(release)
		pass(time.Minute)
		h.in.send("b", "other")
		pass(time.Minute)
		if err := h.pipelines[0].intake.pauseError(); err != nil {
			t.Errorf("still paused: %v", err)
		}
		equal(t, "settled", sorted(h.in.settlements()), []string{"ack behind", "ack other", "ack slow"})
	})
}

func TestARunWhoseDeliveryWasLostCostsNoHealthySubscription(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) {
			<-release // deaf to its context, as a frame that is partly written
			return nil, nil
		}), lanesOf(func(l *Lanes) { l.AckDeadline = 10 * time.Second }))
		defer h.stop()
		h.in.send("a", "1")
		synctest.Wait()
		h.in.cut(h.in.subs[0])
		h.in.lose() // its copy went to another host
		pass(10 * time.Second)
		before, _ := h.in.counts()
		pass(20 * time.Second)
		if after, _ := h.in.counts(); after != before {
			t.Errorf("subscribed again %d times in 20 s", after-before)
		}
		close(release)
		synctest.Wait()
	})
}

func TestAProbeWaitsAsLongAsTheErrorAsks(t *testing.T) {
	for _, c := range []struct{ asks, waits time.Duration }{{20 * time.Second, 20 * time.Second}, {time.Hour, maxRetryAfter}} {
		bubble(t, func(t *testing.T) {
			var runs atomic.Int32
			h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) {
				if runs.Add(1) == 1 {
					return nil, handlers.RetryAfter(handlers.Unavailable(errBroken), c.asks)
				}
				return nil, nil
			}))
			defer h.stop()
			h.in.send("a", "1")
			pass(c.waits - time.Second)
			if runs.Load() != 1 {
				t.Errorf("asked for %v, ran %d times before", c.asks, runs.Load())
			}
			pass(2 * time.Second)
			if runs.Load() != 2 {
				t.Errorf("asked for %v, ran %d times after %v", c.asks, runs.Load(), c.waits)
			}
		})
	}
}

func TestARefusalIsNoProbe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &failing{}
		h := newHarness(t, refusingHandler{f.handle}, lanesOf(func(l *Lanes) { l.Limit, l.AckDeadline = 1, 5*time.Second }),
			func(c *Config) { c.Transports[0].Config.(*fakeSystem).traits.Broker = false })
		for range 10 {
			h.in.send("a", "1")
			pass(3 * time.Second) // in all longer than the ack deadline
		}
		if got := h.in.settlements(); len(got) == 0 {
			t.Error("nothing was refused")
		}
		if err := h.pipelines[0].intake.pauseError(); !errors.Is(err, errBroken) {
			t.Errorf("a refusal ended the pause: %v", err)
		}
		f.up.Store(true)
		pass(time.Minute)
		if err := h.pipelines[0].intake.pauseError(); err != nil {
			h.in.send("b", "2")
			pass(time.Minute)
		}
		if err := h.pipelines[0].intake.pauseError(); err != nil {
			t.Errorf("still paused: %v", err)
		}
		h.stop()
	})
}

func TestAMessageWithoutAnIDIsNobodysCopy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var runs atomic.Int32
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			runs.Add(1)
			return echo(msg)
		}))
		defer h.stop()
		h.out.failPublishing(transports.ErrUndecided)
		h.in.send("a", "")
		synctest.Wait()
		h.in.cut(h.in.subs[0])
		synctest.Wait()
		h.in.lose() // the copy went to another host, which handled it
		h.out.failPublishing(nil)
		pass(time.Minute)
		h.in.send("a", "", transports.Redelivered, "true") // an equal message
		pass(time.Minute)
		if runs.Load() != 2 {
			t.Errorf("handled %d times, want 2", runs.Load())
		}
	})
}

func TestAnUnknownDestinationIsAPermanentErrorOfTheHandler(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var runs atomic.Int32
		var seen error
		watch := middlewareFunc(func(next message.HandlerFunc) message.HandlerFunc {
			return func(msg *message.Message) ([]*message.Message, error) {
				msgs, err := next(msg)
				seen = err
				return msgs, err
			}
		})
		h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) {
			runs.Add(1)
			out := handlers.NewMessage([]byte("x"))
			handlers.SetDestination(out, "nowhere:topic")
			return []*message.Message{out}, nil
		}), func(c *Config) { c.Pipelines[0].Middleware = []Middleware{{Name: "watch", Config: watch}} })
		defer h.stop()
		h.in.send("a", "1")
		pass(time.Minute)
		equal(t, "settled", h.in.settlements(), []string{"ack 1"})
		if runs.Load() != 1 {
			t.Errorf("handled %d times", runs.Load())
		}
		if handlers.KindOf(seen) != handlers.KindPermanent || !strings.Contains(seen.Error(), `no transport "nowhere"`) {
			t.Errorf("the middleware, such as poison, saw %v", seen)
		}
	})
}

func TestNothingIsKeptForCallersThatHaveGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, handlerFunc(echo), callers)
		defer h.stop()
		h.out.failPublishing(transports.ErrUndecided)
		for range 10 {
			ctx, leave := context.WithCancelCause(context.Background())
			msg := newSent("body")
			msg.Context = ctx
			h.in.put(msg)
			synctest.Wait()
			leave(transports.ErrVoid)
		}
		pass(5 * time.Second)
		in := h.pipelines[0].intake
		in.mu.Lock()
		defer in.mu.Unlock()
		if len(in.active) != 0 || len(in.orphans) != 0 || len(in.lanes.byKey) != 0 {
			t.Errorf("%d runs, %d outcomes and %d lanes are kept", len(in.active), len(in.orphans), len(in.lanes.byKey))
		}
	})
}

func TestAPipelineOfCallersIsReadyAgainBeforeSomebodyCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &failing{}
		h := newHarness(t, handlerFunc(f.handle), callers)
		defer h.stop()
		h.in.send("a", "1")
		synctest.Wait()
		if err := h.pipelines[0].intake.pauseError(); !errors.Is(err, errBroken) {
			t.Errorf("health says %v", err)
		}
		pass(time.Second)
		if err := h.pipelines[0].intake.pauseError(); err != nil {
			t.Errorf("not ready, so nobody will call and find that it works: %v", err)
		}
	})
}

// closed is a system that takes no messages now.
type closed struct {
	*fakeSystem
	why atomic.Pointer[error]
}

func (c *closed) New(transports.Env) (transports.Transport, error) { return c, nil }

func (c *closed) Accepts(string) error {
	if err := c.why.Load(); err != nil {
		return *err
	}
	return nil
}

func TestCallersAreToldAtOnceThatTheDestinationIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		out := &closed{fakeSystem: newSystem(16)}
		out.why.Store(&errBroken)
		h := newHarness(t, handlerFunc(echo), callers, func(c *Config) { c.Transports[1].Config = out })
		defer h.stop()
		ask := func() *transports.Outcome { return <-h.in.put(newSent("")).outcome }
		if o := ask(); o.Code != 503 || !errors.Is(o.Err, errBroken) {
			t.Errorf("outcome %+v", o)
		}
		publishing := h.Health()[len(h.Health())-1]
		if publishing.Part != "publishing" || !errors.Is(publishing.Err, errBroken) {
			t.Errorf("health says %+v", publishing)
		}
		out.why.Store(nil)
		if o := ask(); o.Code != 200 || !o.Published {
			t.Errorf("outcome %+v", o)
		}
	})
}

// slowEnd is a system whose subscriptions end long after their contexts, as those of amqp do if
// the broker doesn't respond.
type slowEnd struct{ *fakeSystem }

func (s slowEnd) New(transports.Env) (transports.Transport, error) { return s, nil }

func (slowEnd) Subscriber(transports.Consumer) (transports.Subscriber, error) {
	return slowSubscriber{}, nil
}

type slowSubscriber struct{}

func (slowSubscriber) Subscribe(ctx context.Context, _ string, _ func(*transports.Delivery)) (<-chan struct{}, error) {
	done := make(chan struct{})
	context.AfterFunc(ctx, func() { time.Sleep(time.Minute); close(done) })
	return done, nil
}

func (slowSubscriber) Close() error { return errBroken }

func TestAStopIsBoundedWhateverTheSourceDoes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, handlerFunc(echo), func(c *Config) { c.Transports[0].Config = slowEnd{newSystem(16)} })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		err := h.Stop(ctx)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("took %v", took)
		}
		if err == nil || !strings.Contains(err.Error(), "pipeline test: its source didn't end") {
			t.Errorf("stop: %v", err)
		}
		pass(2 * time.Minute) // the source's own end, so that the bubble is empty
	})
}

func TestTheAckDeadlineCountsForEveryDelivery(t *testing.T) {
	now := time.Now()
	l := newLanes(16, Lanes{Limit: 4, Stall: time.Hour, AckDeadline: time.Minute}, true)
	entryOf := func(key string) *entry {
		return &entry{delivery: &transports.Delivery{Context: context.Background()}, desc: handlers.Description{Key: key}}
	}
	holder, undescribable, takenOver, young := entryOf("a"), entryOf(""), entryOf("a"), entryOf("a")
	l.addEntry(holder, false, now)
	l.startNext(now)
	l.addEntry(young, false, now.Add(50*time.Second))
	l.addEntry(takenOver, false, now) // arrived before the one in front of it
	l.addEntry(undescribable, true, now)
	if l.refuseOverdue(now.Add(time.Minute)) {
		t.Error("there is nothing that can't be refused")
	}
	if takenOver.reason != handlers.ReasonAckDeadline || undescribable.reason != handlers.ReasonAckDeadline || young.reason != "" {
		t.Errorf("refused: %q %q %q", takenOver.reason, undescribable.reason, young.reason)
	}
	if !holder.isOverdue(now.Add(time.Minute), l.deadline) {
		t.Error("the started one isn't overdue")
	}
	l.endRun(holder, true, now)
	if e := l.startNext(now); e == nil || e.reason == "" {
		t.Error("the refusals don't go first")
	}
}
