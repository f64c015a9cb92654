package router

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
	"github.com/pentrough/pentrough/transports"
)

// answering is a source that can answer to the reply_to of its messages.
type answering struct {
	*fakeSystem
	mu      sync.Mutex
	answers []string
}

func (a *answering) New(transports.Env) (transports.Transport, error) { return a, nil }

func (a *answering) Answer(metadata message.Metadata, o *transports.Outcome) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, msg := range o.Messages {
		a.answers = append(a.answers, metadata[transports.ReplyTo]+": "+string(msg.Payload))
	}
}

func (a *answering) Expect(context.Context) (string, string, <-chan *message.Message, func(), error) {
	panic("not in these tests")
}

func (a *answering) all() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.answers...)
}

// abandonRig is a host whose ledger has one message that has begun, and one with outputs.
type abandonRig struct {
	*harness
	source *answering
	ledger *middlewaretest.Ledger
}

const begunTimeout = 10 * time.Minute

func newAbandonRig(t *testing.T, window int, handle handlerFunc) *abandonRig {
	t.Helper()
	return newAbandonRigOf(t, window, refusingHandler{handle})
}

func newAbandonRigOf(t *testing.T, window int, h handlers.Config) *abandonRig {
	t.Helper()
	r := &abandonRig{source: &answering{fakeSystem: newSystem(window)}, ledger: middlewaretest.NewLedger()}
	for _, id := range []string{"begun", "done"} {
		key := middleware.LedgerKey{Pipeline: "test", ID: id, Device: "d"}
		origin := middleware.Origin{UUID: "uuid of " + id, ReplyTo: "reply of " + id, CorrelationID: "of " + id}
		if _, err := r.ledger.Reserve(t.Context(), key, middleware.Digest{}, origin); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ledger.Begin(key, false); err != nil {
			t.Fatal(err)
		}
		if id == "begun" {
			r.ledger.Release(key)
		} else if err := r.ledger.Commit(key, []middleware.Output{{UUID: "u", Payload: []byte("output of done")}}); err != nil {
			t.Fatal(err)
		}
	}
	kind, _ := plugin.Registered().Kind("middleware")
	dedup, _ := kind.Lookup("dedup")
	r.harness = newHarness(t, h, func(c *Config) {
		c.Transports[0].Config, c.Ledger = r.source, r.ledger
		c.Pipelines[0].Middleware = []Middleware{{Name: "dedup", Type: "dedup", Config: dedup.New().(middleware.Config)}}
	})
	r.in = r.source.fakeSystem
	return r
}

func (r *abandonRig) state(id string) string {
	return r.ledger.State(middleware.LedgerKey{Pipeline: "test", ID: id, Device: "d"})
}

var abandonedOutputs = []string{"results output of done", "results refused begun: " + string(handlers.ReasonAbandoned)}

func TestAMessageThatHadBegunAndNeverComes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newAbandonRig(t, 16, echo)
		pass(begunTimeout - time.Second)
		equal(t, "outputs before begun_timeout", r.out.outputs(), nil)
		pass(time.Minute)
		got := r.out.outputs()
		if len(got) == 2 && strings.Contains(got[0], "refused") {
			got[0], got[1] = got[1], got[0] // they are in no order
		}
		equal(t, "outputs", got, abandonedOutputs)
		if len(r.source.all()) != 2 {
			t.Errorf("answers %q", r.source.all())
		}
		for _, msg := range r.out.published {
			if id := msg.Metadata[transports.CorrelationID]; id != "of begun" && id != "of done" {
				t.Errorf("correlation id %q", id)
			}
		}
		for _, id := range []string{"begun", "done"} {
			if s := r.state(id); s != "confirmed" {
				t.Errorf("%s is %s", id, s)
			}
		}
		pass(time.Hour)
		if n := len(r.out.outputs()); n != 2 {
			t.Errorf("%d outputs after another hour", n)
		}
		r.stop()
	})
}

// A message that is redelivered later gets the same result, and the handler isn't called.
func TestAnAbandonedMessageThatComesLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newAbandonRig(t, 16, func(*message.Message) ([]*message.Message, error) {
			t.Error("the handler was called")
			return nil, nil
		})
		pass(begunTimeout + time.Minute)
		before := r.out.outputs()
		again := newSent("", transports.Device, "d", transports.MessageID, "begun")
		key := middleware.LedgerKey{Pipeline: "test", ID: "begun", Device: "d"}
		claim, err := r.ledger.Reserve(t.Context(), key, middleware.Digest{}, middleware.Origin{})
		if err != nil || claim.State != middleware.ClaimDone || len(claim.Outputs) != 1 || !strings.Contains(string(claim.Outputs[0].Payload), "refused begun") {
			t.Errorf("a duplicate gets %+v, %v", claim, err)
		}
		r.in.put(again)
		pass(time.Second)
		if after := r.out.outputs(); len(after) != len(before)+1 {
			t.Errorf("outputs %q, then %q", before, after)
		}
		r.stop()
	})
}

// The time in which the source can't deliver doesn't count.
func TestTimeInWhichTheSourceCannotDeliverDoesNotCount(t *testing.T) {
	t.Run("the pipeline has no consumer", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := newAbandonRig(t, 16, echo)
			pass(begunTimeout / 2)
			p := r.pipelines[0].intake
			p.presence.closeSubscriber()
			pass(time.Hour)
			equal(t, "outputs after an hour without a consumer", r.out.outputs(), nil)
			p.presence.openSubscriber()(true)
			pass(begunTimeout / 4)
			equal(t, "outputs soon after", r.out.outputs(), nil)
			pass(begunTimeout / 2)
			if n := len(r.out.outputs()); n != 2 {
				t.Errorf("%d outputs", n)
			}
			r.stop()
		})
	})
	t.Run("the window is full", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			release := make(chan struct{})
			r := newAbandonRig(t, 2, func(_ *message.Message) ([]*message.Message, error) {
				<-release
				return nil, nil
			})
			r.in.send("x", "1")
			r.in.send("y", "2")
			pass(begunTimeout + time.Minute)
			equal(t, "outputs with a full window", r.out.outputs(), nil)
			close(release)
			pass(begunTimeout + time.Minute)
			if n := len(r.out.outputs()); n != 2 {
				t.Errorf("%d outputs", n)
			}
			r.stop()
		})
	})
}

// A delivery became void while its message was handled, and the message isn't redelivered. The
// result is still sent to its reply_to, once.
func TestAnAnswerWhoseMessageIsNotDeliveredAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newAbandonRig(t, 16, func(msg *message.Message) ([]*message.Message, error) {
			<-release
			return echo(msg)
		})
		r.ledger.Fail(func(string) error { return nil })
		r.in.send("e", "cut", transports.ReplyTo, "asker")
		pass(time.Second)
		r.pipelines[0].intake.mu.Lock()
		for e := range r.pipelines[0].intake.active {
			e.keptRun = true // as if the subscription had been given back
		}
		r.pipelines[0].intake.mu.Unlock()
		r.in.mu.Lock()
		sub := r.in.subs[0]
		r.in.mu.Unlock()
		r.in.cut(sub)
		r.in.lose()
		close(release)
		pass(begunTimeout / 2)
		for _, a := range r.source.all() {
			t.Errorf("answered %s before begun_timeout", a)
		}
		pass(begunTimeout)
		n := 0
		for _, a := range r.source.all() {
			if strings.HasPrefix(a, "asker: ") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d answers to the asker in %q", n, r.source.all())
		}
		r.stop()
	})
}

// panicking panics when it has to refuse a message.
type panicking struct{ refusingHandler }

func (p panicking) New(handlers.Env) (handlers.Handler, error) { return p, nil }

func (panicking) Refuse(context.Context, *message.Message, handlers.Reason) ([]*message.Message, error) {
	panic("in Refuse")
}

// If the handler panics for an abandoned message, the message ends and the pipeline goes on.
func TestAnAbandonedMessageThatCannotBeRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newAbandonRigOf(t, 16, panicking{refusingHandler{echo}})
		pass(begunTimeout + time.Minute)
		equal(t, "outputs", r.out.outputs(), abandonedOutputs[:1])
		if s := r.state("begun"); s != "confirmed" {
			t.Errorf("its record is %s", s)
		}
		if err := r.pipelines[0].intake.pauseError(); err != nil {
			t.Errorf("the pipeline is paused: %v", err)
		}
		r.stop()
	})
}

// The source doesn't redeliver an abandoned message. So the pipeline keeps it when it gives the
// subscription back.
func TestAnAbandonedMessageStaysWhenTheSubscriptionIsGivenBack(t *testing.T) {
	l, now := newLanes(16, DefaultLanes, true), time.Now()
	e := func(abandoned bool) *entry {
		d := &transports.Delivery{Context: t.Context()}
		return &entry{delivery: d, abandoned: abandoned, desc: handlers.Description{Key: "d"}}
	}
	sent, refused, brought := e(false), e(false), e(true)
	l.addEntry(refused, false, now)
	l.refuseWaiting(refused.lane, handlers.ReasonStalled, anyEntry)
	l.addEntry(sent, false, now)
	l.addAbandoned(brought, now)
	if dropped := l.dropUnstarted(fromSource); len(dropped) != 2 || dropped[0] != refused || dropped[1] != sent {
		t.Errorf("%d messages are given back", len(dropped))
	}
	if got := l.startNext(now); got != brought {
		t.Errorf("%+v starts", got)
	}
	l.endRun(brought, false, now)
	if len(l.byKey) != 0 || l.running != 0 || l.hasUnstarted() {
		t.Errorf("left: %+v", l)
	}
}
