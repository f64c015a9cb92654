package amqp

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
)

// taken takes deliveries as the router does: it counts their bytes in the budget until they are
// settled.
type taken struct {
	budget *transports.Budget

	mu         sync.Mutex
	deliveries []*transports.Delivery
	bodies     []string
	most       int // bytes in flight
}

func (k *taken) take(d *transports.Delivery) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.budget.Add(len(d.Payload))
	k.most = max(k.most, k.budget.Used())
	k.deliveries = append(k.deliveries, d)
	k.bodies = append(k.bodies, string(d.Payload[:1]))
}

// settle settles the deliveries that were taken, and returns their number.
func (k *taken) settle() int {
	k.mu.Lock()
	all := k.deliveries
	k.deliveries = nil
	k.mu.Unlock()
	for _, d := range all {
		k.budget.Give(len(d.Payload))
		d.Settle(&transports.Outcome{})
	}
	return len(all)
}

// open returns the number of deliveries that are taken and not settled.
func (k *taken) open() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.deliveries)
}

func TestLargeMessagesAreTakenWithinTheBudget(t *testing.T) {
	t.Parallel()
	const size, limit, n = 300_000, 1_000_000, 26
	for kind, args := range map[string]amqp.Table{"classic": nil, "quorum": {amqp.QueueTypeArg: quorum}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := testenv.Broker(t).VHost(t)
			peer := dial(t, url)
			peer.queue("q", args)
			var want []string
			for i := range n {
				want = append(want, string(rune('a'+i)))
				peer.put("q", strings.Repeat(want[i], size))
			}
			budget := transports.NewBudget(limit)
			r := prepare(t, config(url, func(c *Config) {
				c.Topics = map[string]TopicConfig{"q": {Exchange: defaultExchange, QueueType: kind}}
			}))
			r.tr.env.Memory.InFlight = budget
			r.begin()
			k := &taken{budget: budget}
			if _, err := r.subscriber().Subscribe(t.Context(), "q", k.take); err != nil {
				t.Fatal(err)
			}
			r.logs(1, "reducing the prefetch")
			if open := k.open(); open != limit/size+1 {
				t.Errorf("%d messages are in flight", open)
			}
			settled := 0
			r.until("all messages are settled", func() bool {
				settled += k.settle()
				return settled == n
			})
			if got := strings.Join(k.bodies, ""); got != strings.Join(want, "") {
				t.Errorf("taken as %s", got)
			}
			if most := limit + size; k.most > most {
				t.Errorf("%d bytes were in flight, %d at most may be", k.most, most)
			}
			r.logs(1, "restoring the configured prefetch")
			for range n {
				peer.put("q", "x")
			}
			r.until("small ones are in flight, as many as there are", func() bool { return k.open() == n })
			k.settle()
			r.close()
			if used := budget.Used(); used != 0 {
				t.Errorf("%d bytes of the budget are left taken", used)
			}
		})
	}
}

// If others fill the budget, a subscription still takes one message at a time, however large.
func TestAFullBudgetLeavesOneMessageAtATime(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("q", nil)
	peer.put("q", "a", strings.Repeat("b", 2000), "c")
	r := prepare(t, config(url, onQueue))
	r.tr.env.Memory.InFlight = transports.NewBudget(1000)
	r.tr.env.Memory.InFlight.Add(5000)
	r.begin()
	k := &taken{budget: r.tr.env.Memory.InFlight}
	if _, err := r.subscriber().Subscribe(t.Context(), "q", k.take); err != nil {
		t.Fatal(err)
	}
	settled := 0
	r.until("all messages are settled", func() bool {
		if open := k.open(); open > 1 {
			t.Fatalf("%d messages are in flight", open)
		}
		settled += k.settle()
		return settled == 3
	})
	if got := strings.Join(k.bodies, ""); got != "abc" {
		t.Errorf("taken as %s", got)
	}
}

// deliveryFrames returns the frames of a delivery to a consumer, with the body in two frames.
func deliveryFrames(channel uint16, tag, body string) (all [][]byte) {
	method := binary.BigEndian.AppendUint32(nil, basicDeliver)
	method = append(append(method, byte(len(tag))), tag...)
	method = append(method, make([]byte, 8+1+2)...)
	header := binary.BigEndian.AppendUint64([]byte{0, 60, 0, 0}, uint64(len(body)))
	half := len(body) / 2
	return [][]byte{
		frameOf(methodFrame, channel, method), frameOf(headerFrame, channel, append(header, 0, 0)),
		frameOf(bodyFrame, channel, []byte(body[:half])), frameOf(bodyFrame, channel, []byte(body[half:])),
	}
}

func TestFramesSkipDeliveriesWithoutRoom(t *testing.T) {
	heartbeat := frameOf(8, 0, nil)
	first, second := deliveryFrames(1, "counted", strings.Repeat("1", 1000)), deliveryFrames(1, "counted", "2")
	other, tap := deliveryFrames(2, "other", "3"), deliveryFrames(3, "of nobody", "4")
	// Frames of other channels come between those of a delivery.
	var in, want []byte
	for i := range first {
		in = append(in, first[i]...)
		want = append(want, first[i]...)
	}
	for i := range second {
		in = append(in, second[i]...)
		for _, f := range [][]byte{other[i], heartbeat, tap[i]} {
			in = append(in, f...)
			want = append(want, f...)
		}
	}
	for name, reader := range map[string]func(io.Reader) io.Reader{
		"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader,
	} {
		budget := transports.NewBudget(1000)
		counted, others := newArrivals(budget), newArrivals(budget)
		var c consumers
		c.addConsumer("counted", counted)
		c.addConsumer("other", others)
		got, err := io.ReadAll(newFrames(reader(bytes.NewReader(in)), nil, &c))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %d bytes of %d", name, err, len(got), len(want))
		}
		if used := budget.Used(); used != 1001 {
			t.Errorf("%s: %d bytes are in flight", name, used)
		}
		if !counted.takeDelivery(1000) || !counted.isExhausted() || others.isExhausted() {
			t.Errorf("%s: the first isn't there, or the others are skipped", name)
		}
		counted.endConsumer()
		others.endConsumer()
		if used := budget.Used(); used != 0 {
			t.Errorf("%s: %d bytes are left taken", name, used)
		}
	}
}

func TestPrefetch(t *testing.T) {
	const limit = 1000
	p := prefetch{configured: 100}
	for _, c := range []struct{ largest, want int }{{100, 5}, {100, 1}} {
		if p.reduceFor(limit, c.largest); p.current() != c.want {
			t.Errorf("reduced to %d, want %d", p.current(), c.want)
		}
	}
	for largest, want := range map[int]int{1: 50, 1000: 1, 5000: 1, 0: 50} {
		p := prefetch{configured: 100}
		if p.reduceFor(limit, largest); p.current() != want {
			t.Errorf("with messages of %d bytes reduced to %d, want %d", largest, p.current(), want)
		}
	}
}
