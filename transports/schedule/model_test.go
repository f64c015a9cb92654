package schedule

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/transports"
)

const modelEvery = 10 * time.Second

// model is a consumer as a test's reader sees it.
type model struct {
	s      message.Subscriber
	out    <-chan *message.Message
	cancel context.CancelFunc // nil between two subscriptions
	begun  time.Time

	place   int // the tick in the consumer's place; 0 is none
	held    *message.Message
	said    string // what it says was missed before it
	again   bool
	pause   time.Duration
	after   time.Time // not handed out again before
	skipped int       // missed since a new one was handed out
	missed  int
}

// TestModel holds that a pipeline has one tick at a time, the newest that it can have, and hears of all that it missed.
func TestModel(t *testing.T) {
	bubble(t, func(t *testing.T, rt *rapid.T) {
		k := build(t, TopicConfig{Every: modelEvery, Payload: "{n}"}, nil)
		m := &model{s: subscriberOf(t, k, "a"), begun: time.Now()}
		m.subscribe(rt)
		start(t, k)
		m.sleep(time.Millisecond) // nothing is done at the moment of a tick
		rt.Repeat(map[string]func(*rapid.T){
			"ticks": func(rt *rapid.T) { m.sleep(time.Duration(rapid.IntRange(1, 4).Draw(rt, "ticks")) * modelEvery) },
			"moment": func(rt *rapid.T) {
				m.sleep(time.Duration(rapid.IntRange(1, 60).Draw(rt, "moment")) * 50 * time.Millisecond)
			},
			"receive": m.receive,
			"ack":     func(*rapid.T) { m.settle(true) },
			"nack":    func(*rapid.T) { m.settle(false) },
			"again":   m.resubscribe,
			"": func(rt *rapid.T) {
				synctest.Wait()
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
	out, err := m.s.Subscribe(ctx, "x")
	if err != nil {
		rt.Fatal(err)
	}
	m.out, m.cancel = out, cancel
}

// sleep lets ticks come due.
func (m *model) sleep(d time.Duration) {
	first := int(time.Since(m.begun)/modelEvery) + 1
	time.Sleep(d)
	synctest.Wait()
	for n := first; n <= int(time.Since(m.begun)/modelEvery); n++ {
		if m.place != 0 {
			m.missed++
			m.skipped++
		}
		if m.held != nil {
			continue
		}
		m.place, m.again, m.pause, m.after = n, false, 0, time.Time{}
		if m.cancel == nil {
			m.place = 0
		}
	}
}

func (m *model) receive(rt *rapid.T) {
	synctest.Wait()
	var msg *message.Message
	select {
	case msg = <-m.out:
	default:
	}
	if ready := m.place != 0 && m.held == nil && !time.Now().Before(m.after); ready != (msg != nil) {
		rt.Fatalf("tick %d, held %v: received %v", m.place, m.held != nil, msg)
	}
	if msg == nil {
		return
	}
	if string(msg.Payload) != fmt.Sprint(m.place) || (msg.Metadata[transports.Redelivered] == "true") != m.again {
		rt.Fatalf("received %s, redelivered %q, want %d, %v", msg.Payload, msg.Metadata[transports.Redelivered], m.place, m.again)
	}
	if !m.again {
		m.said, m.skipped = fmt.Sprint(m.skipped), 0
	}
	if got := msg.Metadata[missedKey]; got != m.said {
		rt.Fatalf("tick %d says that %s were missed before it, want %s", m.place, got, m.said)
	}
	m.held = msg
}

func (m *model) settle(ack bool) {
	switch {
	case m.held == nil:
		return
	case ack:
		m.held.Ack()
		m.place = 0
	default:
		m.held.Nack()
		m.again, m.pause = true, min(max(2*m.pause, firstPause), longestPause)
		m.after = time.Now().Add(m.pause)
	}
	m.held = nil
	synctest.Wait()
}

// resubscribe ends the subscription, settles what is held, lets time pass, and subscribes anew.
func (m *model) resubscribe(rt *rapid.T) {
	m.cancel()
	synctest.Wait()
	if m.held != nil {
		select {
		case msg, ok := <-m.out:
			rt.Fatalf("after the cancel: received %v, open %v", msg, ok)
		default:
		}
		m.settle(rapid.Bool().Draw(rt, "ack"))
	}
	if msg, ok := <-m.out; ok {
		rt.Fatalf("after the cancel: received %s", msg.Payload)
	}
	m.cancel = nil
	m.sleep(time.Duration(rapid.IntRange(0, 300).Draw(rt, "away")) * 50 * time.Millisecond)
	m.subscribe(rt)
}
