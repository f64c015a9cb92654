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

// model is a consumer's buffer as a test's reader sees it.
type model struct {
	p       message.Publisher
	s       message.Subscriber
	out     <-chan *message.Message
	cancel  context.CancelFunc
	buffer  int
	window  int
	number  int
	waiting []int
	nacked  map[int]bool
	held    map[int]*message.Message
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// A failed check panics; the panic is carried out of the bubble to where rapid sees it. Rapid tells panics
		// apart by their place, so that of a draw that ran out of data needs one of its own.
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
		nacked: map[int]bool{},
		held:   map[int]*message.Message{},
	}
	m := build(t, Config{Buffer: md.buffer, Window: md.window})
	md.p = publisherOf(t, m)
	md.s, _ = m.Subscriber(transports.Consumer{Pipeline: "a"})
	md.subscribe(rt)
	defer func() { md.cancel() }()
	rt.Repeat(map[string]func(*rapid.T){
		"publish": md.publish,
		"receive": md.receive,
		"ack":     func(rt *rapid.T) { md.settle(rt, true) },
		"nack":    func(rt *rapid.T) { md.settle(rt, false) },
		"again":   md.again,
	})
}

func (md *model) subscribe(rt *rapid.T) {
	ctx, cancel := context.WithCancel(context.Background())
	out, err := md.s.Subscribe(ctx, "x")
	if err != nil {
		rt.Fatal(err)
	}
	md.out, md.cancel = out, cancel
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

func (md *model) receive(rt *rapid.T) {
	synctest.Wait()
	var msg *message.Message
	select {
	case msg = <-md.out:
	default:
	}
	ready := len(md.waiting) > 0 && len(md.held) < min(md.window, md.buffer)
	if ready != (msg != nil) {
		rt.Fatalf("%d waiting, %d held: received %v", len(md.waiting), len(md.held), msg)
	}
	if msg == nil {
		return
	}
	first := md.waiting[0]
	md.waiting = md.waiting[1:]
	md.held[first] = msg
	if string(msg.Payload) != fmt.Sprint(first) {
		rt.Fatalf("received %s, want %d", msg.Payload, first)
	}
	if again := msg.Metadata[transports.Redelivered] == "true"; again != md.nacked[first] {
		rt.Fatalf("message %d says redelivered %v", first, again)
	}
}

// settle acks or nacks any message that is held.
func (md *model) settle(rt *rapid.T, ack bool) {
	if len(md.held) == 0 {
		return
	}
	n := rapid.SampledFrom(slices.Sorted(maps.Keys(md.held))).Draw(rt, "message")
	msg := md.held[n]
	delete(md.held, n)
	if ack {
		msg.Ack()
	} else {
		msg.Nack()
		md.nacked[n] = true
		md.waiting = append(md.waiting, n)
		slices.Sort(md.waiting)
	}
	synctest.Wait()
}

// again ends the subscription, settles what is held, and subscribes anew.
func (md *model) again(rt *rapid.T) {
	md.cancel()
	synctest.Wait()
	for len(md.held) > 0 {
		select {
		case msg, ok := <-md.out:
			rt.Fatalf("after the cancel: received %v, open %v", msg, ok)
		default:
		}
		md.settle(rt, rapid.Bool().Draw(rt, "ack"))
	}
	if msg, ok := <-md.out; ok {
		rt.Fatalf("after the cancel: received %s", msg.Payload)
	}
	md.subscribe(rt)
}
