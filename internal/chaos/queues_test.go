package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports/device"
)

// client is somebody who uses the broker and connects again whenever that is lost.
func client(ctx context.Context, url string, use func(*amqp.Channel) error) {
	for ctx.Err() == nil {
		conn, err := amqp.DialConfig(url, amqp.Config{Heartbeat: 2 * time.Second, Locale: "en_US"})
		if err != nil {
			pause(ctx, 200*time.Millisecond)
			continue
		}
		end := context.AfterFunc(ctx, func() { conn.Close() })
		ch, err := conn.Channel()
		if err == nil {
			_ = use(ch) // it comes again
		}
		end()
		conn.Close()
		pause(ctx, 100*time.Millisecond)
	}
}

// backEnd publishes commands as a back end would: with confirms, a command again with the same id until it is confirmed, and the next one
// of a device only then.
type backEnd struct {
	rng        *rand.Rand
	rate       time.Duration
	atMostOnce int // of a hundred

	mu       sync.Mutex
	commands []*Command
	// turn holds the devices that may get a command; their last one is confirmed.
	turn []string
	// again are commands that must be published again.
	again   []*Command
	numbers map[string]int
	waiting int // commands that are published and undecided
	closing bool
}

func newBackEnd(rng *rand.Rand, p plan) *backEnd {
	b := &backEnd{rng: rng, rate: time.Second / time.Duration(p.rate), atMostOnce: p.atMostOnce, numbers: map[string]int{}}
	for i := range p.devices {
		b.turn = append(b.turn, deviceAddress(i))
	}
	return b
}

// publish publishes until the channel is lost, or nothing is left to publish after close.
func (b *backEnd) publish(ctx context.Context, ch *amqp.Channel) error {
	if err := ch.Confirm(false); err != nil {
		return err
	}
	var confirms sync.WaitGroup
	defer confirms.Wait()
	ticker := time.NewTicker(b.rate)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		c := b.next()
		if c == nil {
			continue
		}
		fields := map[string]string{"id": c.ID, "device": c.Device, "cmd": c.ID, "mode": string(c.Mode)}
		if c.Sets != "" {
			fields["supersede"] = c.Sets
		}
		if c.Held {
			fields["offline"] = string(device.Hold)
		}
		if c.TTL > 0 {
			fields["expires_at"] = c.Sent.Add(c.TTL).Format(time.RFC3339Nano)
		}
		body, _ := json.Marshal(fields) // strings always work
		if c.Malformed {
			body = body[:len(body)/2]
		}
		confirm, err := ch.PublishWithDeferredConfirm("device.commands", c.Device, false, false, amqp.Publishing{
			MessageId: c.ID, ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: body, Headers: headers(c),
		})
		if err != nil {
			b.decided(c, false)
			return err
		}
		confirms.Go(func() { b.decided(c, confirm.Wait()) })
	}
}

// headers are those that clients in other languages set: of every type, on some commands.
func headers(c *Command) amqp.Table {
	if c.Number%10 != 0 {
		return nil
	}
	return amqp.Table{
		"text": c.ID, "int": int32(c.Number), "long": int64(c.Number), "float": 0.5, "bool": true, "bytes": []byte{0, 255}, "none": nil,
		"time": time.Unix(int64(c.Number), 0), "decimal": amqp.Decimal{Scale: 2, Value: 1234}, "list": []any{"a", int32(1)}, "table": amqp.Table{"a": int16(1)},
	}
}

// next is the command to publish now, or nil.
func (b *backEnd) next() *Command {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.again) > 0 {
		c := b.again[0]
		b.again = b.again[1:]
		c.Publishes++
		b.waiting++
		return c
	}
	if b.closing || len(b.turn) == 0 {
		return nil
	}
	i := b.rng.IntN(len(b.turn))
	address := b.turn[i]
	b.turn[i] = b.turn[len(b.turn)-1]
	b.turn = b.turn[:len(b.turn)-1]
	b.numbers[address]++
	c := &Command{
		ID: fmt.Sprintf("c-%06d", len(b.commands)+1), Device: address, Mode: device.AtLeastOnce, Number: b.numbers[address], Sent: time.Now(), Publishes: 1,
	}
	c.Malformed = b.rng.IntN(100) == 0
	if b.rng.IntN(5) == 0 {
		c.Sets = "setpoint"
	}
	c.Held = b.rng.IntN(3) == 0
	if b.rng.IntN(10) == 0 {
		c.TTL = time.Duration(1+b.rng.IntN(10)) * time.Second
	}
	if b.rng.IntN(100) < b.atMostOnce {
		c.Mode = device.AtMostOnce
	}
	b.commands = append(b.commands, c)
	b.waiting++
	return c
}

// decided notes a confirm, or that there is none.
func (b *backEnd) decided(c *Command, confirmed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting--
	if !confirmed {
		b.again = append(b.again, c)
		return
	}
	c.Confirmed = true
	b.turn = append(b.turn, c.Device)
}

// close begins no new commands; drained tells when all are confirmed.
func (b *backEnd) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closing = true
}

func (b *backEnd) drained() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closing && b.waiting == 0 && len(b.again) == 0
}

func (b *backEnd) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.commands)
}

func (b *backEnd) history() []Command {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Command
	for _, c := range b.commands {
		all = append(all, *c)
	}
	return all
}

// The queues that a reader reads.
const (
	results = "results"
	status  = "status"
	poison  = "commands.poison"
)

// reader takes what comes out: results, events and poison.
type reader struct {
	t *testing.T

	mu       sync.Mutex
	results  []Result
	events   []Event
	presence *Presence
	poison   []string
	// over are the ids that have a result or are poison.
	over map[string]bool
	last time.Time
}

func newReader(t *testing.T) *reader {
	return &reader{t: t, presence: NewPresence(), over: map[string]bool{}, last: time.Now()}
}

// read consumes a queue until the channel is lost.
func (r *reader) read(ch *amqp.Channel, queue string) error {
	if _, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
		return err // the host hasn't declared it yet
	}
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for d := range deliveries {
		r.take(queue, &d)
		if err := d.Ack(false); err != nil {
			return err
		}
	}
	return amqp.ErrClosed
}

func (r *reader) take(queue string, d *amqp.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = time.Now()
	switch queue {
	case status:
		var e Event
		if err := json.Unmarshal(d.Body, &e.Event); err != nil {
			r.t.Errorf("an event that is none: %v: %s", err, d.Body)
		}
		e.Read = r.last
		r.events = append(r.events, e)
		r.presence.Apply(e.Event, e.Read)
	case poison:
		r.poison = append(r.poison, d.MessageId)
		r.over[d.MessageId] = true
	case results:
		result, err := device.ParseResult(d.Body)
		if err != nil {
			r.t.Errorf("a result that is none: %v: %s", err, d.Body)
			return
		}
		r.results = append(r.results, Result{Result: result, Body: string(d.Body), Read: r.last})
		if result.State.Terminal() {
			r.over[result.ID] = true
		}
	}
}

// quiet is how long nothing has come.
func (r *reader) quiet() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.last)
}

// settled is how many commands have a result or are poison.
func (r *reader) settled() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.over)
}

// online is who is online as the events tell it.
func (r *reader) online() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	return r.presence.Online(now, now)
}
