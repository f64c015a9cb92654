package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/transports"
)

// model is the model of a consumer's buffer.
type model struct {
	p       message.Publisher
	s       transports.Subscriber
	taken   chan *transports.Delivery // has room for all of the window
	done    <-chan struct{}
	cancel  context.CancelFunc
	buffer  int
	window  int
	number  int
	waiting []int
	back    map[int]bool // nacked at least once
	held    map[int]*transports.Delivery
	settled []*transports.Delivery
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// A failed check panics. The panic is passed out of the bubble, so that rapid sees it.
		// Rapid distinguishes panics by their place in the code. So the panic of a draw that ran
		// out of data is raised at a place of its own.
		var failure any
		synctest.Test(t, func(t *testing.T) {
			defer func() { failure = recover() }()
			check(t, rt)
		})
		switch {
		case fmt.Sprintf("%T", failure) == "rapid.invalidData":
			panic(failure)
		case failure != nil:
			panic(failure)
		}
	})
}

func check(t *testing.T, rt *rapid.T) {
	md := &model{
		buffer: rapid.IntRange(1, 8).Draw(rt, "buffer"),
		window: rapid.IntRange(1, 8).Draw(rt, "window"),
		taken:  make(chan *transports.Delivery, 8),
		back:   map[int]bool{},
		held:   map[int]*transports.Delivery{},
	}
	m := build(t, Config{Buffer: md.buffer, Window: md.window})
	md.p = publisherOf(t, m)
	md.s, _ = m.Subscriber(transports.Consumer{Pipeline: "a"})
	md.subscribe(rt)
	defer func() { md.cancel() }()
	rt.Repeat(map[string]func(*rapid.T){
		"publish": md.publish,
		"ack":     func(rt *rapid.T) { md.settle(rt, &transports.Outcome{}) },
		"back":    func(rt *rapid.T) { md.settle(rt, nil) },
		"twice":   md.twice,
		"again":   md.resubscribe,
		"":        md.receive,
	})
}

func (md *model) subscribe(rt *rapid.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done, err := md.s.Subscribe(ctx, "x", func(d *transports.Delivery) { md.taken <- d })
	if err != nil {
		rt.Fatal(err)
	}
	md.done, md.cancel = done, cancel
}

func (md *model) publish(rt *rapid.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := md.p.Publish("x", messageOf(ctx, fmt.Sprint(md.number)))
	full := len(md.waiting)+len(md.held) >= md.buffer
	if full != (err != nil) {
		rt.Fatalf("full: %v, Publish: %v", full, err)
	}
	if err == nil {
		md.waiting = append(md.waiting, md.number)
		md.number++
	}
}

// receive checks that the first messages were delivered, up to the window.
func (md *model) receive(rt *rapid.T) {
	synctest.Wait()
	for len(md.waiting) > 0 && len(md.held) < min(md.window, md.buffer) {
		first := md.waiting[0]
		md.waiting = md.waiting[1:]
		select {
		case d := <-md.taken:
			if string(d.Payload) != fmt.Sprint(first) {
				rt.Fatalf("received %s, want %d", d.Payload, first)
			}
			if again := d.Metadata[transports.Redelivered] == "true"; again != md.back[first] {
				rt.Fatalf("message %d says redelivered %v", first, again)
			}
			md.held[first] = d
		default:
			rt.Fatalf("received nothing, want %d", first)
		}
	}
	md.nothing(rt)
}

// nothing checks that no more messages were delivered.
func (md *model) nothing(rt *rapid.T) {
	select {
	case d := <-md.taken:
		rt.Fatalf("%d waiting, %d held: received %s", len(md.waiting), len(md.held), d.Payload)
	default:
	}
}

// settle settles one of the unsettled messages.
func (md *model) settle(rt *rapid.T, o *transports.Outcome) {
	if len(md.held) == 0 {
		return
	}
	n := rapid.SampledFrom(slices.Sorted(maps.Keys(md.held))).Draw(rt, "message")
	d := md.held[n]
	delete(md.held, n)
	md.settled = append(md.settled, d)
	d.Settle(o)
	if o == nil {
		md.back[n] = true
		md.waiting = append(md.waiting, n)
		slices.Sort(md.waiting)
	}
}

// twice settles a delivery that was settled, which has no effect.
func (md *model) twice(rt *rapid.T) {
	if len(md.settled) > 0 {
		d := rapid.SampledFrom(md.settled).Draw(rt, "settled")
		d.Settle(nil)
		d.Settle(&transports.Outcome{})
	}
}

// resubscribe ends the subscription, settles the unsettled messages, and subscribes again.
func (md *model) resubscribe(rt *rapid.T) {
	md.cancel()
	synctest.Wait()
	for len(md.held) > 0 {
		select {
		case <-md.done:
			rt.Fatalf("after the cancel: done, and %d are held", len(md.held))
		default:
		}
		var o *transports.Outcome
		if rapid.Bool().Draw(rt, "ack") {
			o = &transports.Outcome{}
		}
		md.settle(rt, o)
		synctest.Wait()
		md.nothing(rt)
	}
	<-md.done
	md.subscribe(rt)
}
