package schedule

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/transports"
)

const modelEvery = 10 * time.Second

// model is the model of a consumer.
type model struct {
	s      transports.Subscriber
	k      *clock
	taken  chan *transports.Delivery
	done   <-chan struct{}
	cancel context.CancelFunc // nil between two subscriptions
	begun  time.Time

	place     int // the tick in the consumer's place; 0 is none
	unsettled *transports.Delivery
	before    *transports.Delivery // was settled
	said      string               // its schedule.missed
	again     bool
	pause     time.Duration
	after     time.Time // when it may be redelivered
	skipped   int       // missed since the last new delivery
	missed    int
}

// TestModel checks that a pipeline has one tick at a time, the newest possible one, and that it
// gets the number of missed ticks.
func TestModel(t *testing.T) {
	bubble(t, func(t *testing.T, rt *rapid.T) {
		k := build(t, TopicConfig{Every: modelEvery, Payload: "{n}"}, nil)
		s, err := k.Subscriber(transports.Consumer{Pipeline: "a"})
		if err != nil {
			rt.Fatal(err)
		}
		m := &model{k: k, s: s, taken: make(chan *transports.Delivery, 100), begun: time.Now()}
		m.subscribe(rt)
		start(t, k)
		m.sleep(rt, time.Millisecond) // do nothing at the moment of a tick
		rt.Repeat(map[string]func(*rapid.T){
			"ticks": func(rt *rapid.T) { m.sleep(rt, time.Duration(rapid.IntRange(1, 4).Draw(rt, "ticks"))*modelEvery) },
			"moment": func(rt *rapid.T) {
				m.sleep(rt, time.Duration(rapid.IntRange(1, 60).Draw(rt, "moment"))*50*time.Millisecond)
			},
			"ack":   func(*rapid.T) { m.settle(&transports.Outcome{}) },
			"back":  func(*rapid.T) { m.settle(nil) },
			"twice": func(*rapid.T) { m.settleTwice() },
			"again": m.resubscribe,
			"": func(rt *rapid.T) {
				m.receive(rt)
				k.mu.Lock()
				defer k.mu.Unlock()
				if got := k.topics["x"].consumers["a"].missed; got != uint64(m.missed) {
					rt.Fatalf("%d are counted as missed, want %d", got, m.missed)
				}
			},
		})
	})
}

func (m *model) subscribe(rt *rapid.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done, err := m.s.Subscribe(ctx, "x", func(d *transports.Delivery) { m.taken <- d })
	if err != nil {
		rt.Fatal(err)
	}
	m.done, m.cancel = done, cancel
}

// sleep waits while ticks become due and pauses end, in their order.
func (m *model) sleep(rt *rapid.T, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); m.receive(rt) {
		n := int(time.Since(m.begun)/modelEvery) + 1
		next := m.begun.Add(time.Duration(n) * modelEvery)
		if m.after.After(time.Now()) && m.after.Before(next) {
			next = m.after
		}
		if next.After(end) {
			next = end
		}
		time.Sleep(time.Until(next))
		if n == int(time.Since(m.begun)/modelEvery) {
			m.tick(n)
		}
	}
}

// tick records that a tick is due.
func (m *model) tick(n int) {
	if m.place != 0 {
		m.missed++
		m.skipped++
	}
	if m.unsettled != nil {
		return
	}
	m.place, m.again, m.pause, m.after = n, false, 0, time.Time{}
	if m.cancel == nil {
		m.place = 0
	}
}

// receive checks that the tick in the consumer's place was delivered as soon as possible, and
// nothing else.
func (m *model) receive(rt *rapid.T) {
	synctest.Wait()
	var d *transports.Delivery
	select {
	case d = <-m.taken:
	default:
	}
	ready := m.place != 0 && m.unsettled == nil && m.cancel != nil && !time.Now().Before(m.after)
	if ready != (d != nil) {
		rt.Fatalf("tick %d, unsettled %v: received %v", m.place, m.unsettled != nil, d)
	}
	if d == nil {
		return
	}
	if string(d.Payload) != fmt.Sprint(m.place) || (d.Metadata[transports.Redelivered] == "true") != m.again {
		rt.Fatalf("received %s, redelivered %q, want %d, %v", d.Payload, d.Metadata[transports.Redelivered], m.place, m.again)
	}
	if !m.again {
		m.said, m.skipped = fmt.Sprint(m.skipped), 0
	}
	if got := d.Metadata[missedKey]; got != m.said {
		rt.Fatalf("tick %d says that %s were missed before it, want %s", m.place, got, m.said)
	}
	m.unsettled = d
}

func (m *model) settle(o *transports.Outcome) {
	if m.unsettled == nil {
		return
	}
	m.unsettled.Settle(o)
	if o != nil {
		m.place = 0
	} else {
		m.again, m.pause = true, min(max(2*m.pause, firstPause), longestPause)
		// The pause is random: the model takes the real one, within its bounds.
		k := m.k
		k.mu.Lock()
		m.after = k.topics["x"].consumers["a"].current.after
		k.mu.Unlock()
		if took := time.Until(m.after); took < m.pause/2 || took > m.pause {
			panic(fmt.Sprintf("the pause is %s, want %s to %s", took, m.pause/2, m.pause))
		}
	}
	m.unsettled, m.before = nil, m.unsettled
}

// settleTwice settles a tick that was settled, which has no effect.
func (m *model) settleTwice() {
	if m.before != nil {
		m.before.Settle(nil)
		m.before.Settle(&transports.Outcome{})
	}
}

// resubscribe ends the subscription, settles the unsettled tick, waits, and subscribes again.
func (m *model) resubscribe(rt *rapid.T) {
	m.cancel()
	synctest.Wait()
	if m.unsettled != nil {
		select {
		case <-m.done:
			rt.Fatal("after the cancel: done, and a tick is unsettled")
		default:
		}
		var o *transports.Outcome
		if rapid.Bool().Draw(rt, "ack") {
			o = &transports.Outcome{}
		}
		m.settle(o)
	}
	<-m.done
	m.cancel = nil
	m.sleep(rt, time.Duration(rapid.IntRange(0, 300).Draw(rt, "away"))*50*time.Millisecond)
	m.subscribe(rt)
}
