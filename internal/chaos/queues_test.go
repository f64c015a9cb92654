package chaos

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports/device"
)

// runClient connects to the broker, calls use, and connects again after each lost connection.
func runClient(ctx context.Context, url string, use func(*amqp.Channel) error) {
	for ctx.Err() == nil {
		conn, err := amqp.DialConfig(url, amqp.Config{Heartbeat: 2 * time.Second, Locale: "en_US"})
		if err != nil {
			pause(ctx, 200*time.Millisecond)
			continue
		}
		end := context.AfterFunc(ctx, func() { conn.Close() })
		ch, err := conn.Channel()
		if err == nil {
			_ = use(ch) // it is repeated
		}
		end()
		conn.Close()
		pause(ctx, 100*time.Millisecond)
	}
}

// backEnd publishes commands with confirms, as a back end does. It publishes a command again, with
// the same id, until it is confirmed. A device gets its next command only then.
type backEnd struct {
	rng  *rand.Rand
	rate time.Duration
	load load

	mu       sync.Mutex
	commands []*publication
	count    int // of commands, each of a group by itself
	groups   int
	// turn holds the devices that may get a command; their last one is confirmed.
	free []string
	// again are commands that must be published again.
	again   []*publication
	numbers map[string]int
	waiting int // commands that are published and undecided
	closing bool
}

func newBackEnd(rng *rand.Rand, p plan) *backEnd {
	b := &backEnd{rng: rng, rate: time.Second / time.Duration(p.rate), load: p.load, numbers: map[string]int{}}
	for i := range p.devices {
		b.free = append(b.free, deviceAddress(i))
	}
	return b
}

// publish publishes until the channel is lost, or until nothing is left after close.
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
		s := b.next()
		if s == nil {
			continue
		}
		confirm, err := ch.PublishWithDeferredConfirm(s.exchange(), s.Device, false, false, amqp.Publishing{
			MessageId: s.ID, ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: s.body(), Headers: s.headers(), Expiration: s.expiration(),
		})
		if err != nil {
			b.recordConfirm(s, false)
			return err
		}
		confirms.Go(func() { b.recordConfirm(s, confirm.Wait()) })
	}
}

// next returns the command to publish now, or nil.
func (b *backEnd) next() *publication {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.again) > 0 {
		s := b.again[0]
		b.again = b.again[1:]
		s.Publishes++
		b.waiting++
		return s
	}
	if b.closing || len(b.free) == 0 {
		return nil
	}
	s := b.drawPublication()
	b.commands = append(b.commands, s)
	b.count += len(s.to)
	b.waiting++
	return s
}

// recordConfirm records a confirm, or that it didn't come.
func (b *backEnd) recordConfirm(s *publication, confirmed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting--
	if !confirmed {
		b.again = append(b.again, s)
		return
	}
	s.Confirmed = true
	for _, to := range s.to {
		b.free = append(b.free, to.device)
	}
}

// close ends the creation of new commands. allConfirmed then reports whether all are confirmed.
func (b *backEnd) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closing = true
}

func (b *backEnd) allConfirmed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closing && b.waiting == 0 && len(b.again) == 0
}

// allEnded reports whether n commands are all commands.
func (b *backEnd) allEnded(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return n >= b.count
}

func (b *backEnd) history() []Command {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Command
	for _, s := range b.commands {
		for _, to := range s.to {
			c := s.Command
			c.Device, c.Number = to.device, to.number
			all = append(all, c)
		}
	}
	return all
}

// The queues that a reader reads.
const (
	results   = "results"
	summaries = "summaries"
	status    = "status"
	poison    = "commands.poison"
	// deadLetters is where the broker puts the commands that it gives up.
	deadLetters = "dead-letters"
)

// groupResults is the queue from which the host counts the results of groups.
const groupResults = "group-results"

// reader consumes the queues that the host publishes to: results, events and poison.
type reader struct {
	t *testing.T

	mu       sync.Mutex
	results  []Result
	reports  []GroupReport
	events   []Event
	presence *Presence
	poison   []string
	dead     []DeadLetter
	// over are the commands that have a result, are poison, or were given up by the broker.
	ended map[string]bool
	last  time.Time
}

func newReader(t *testing.T) *reader {
	return &reader{t: t, presence: NewPresence(), ended: map[string]bool{}, last: time.Now()}
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
		r.takeDelivery(queue, &d)
		if err := d.Ack(false); err != nil {
			return err
		}
	}
	return amqp.ErrClosed
}

func (r *reader) takeDelivery(queue string, d *amqp.Delivery) {
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
		r.ended[d.MessageId] = true
	case deadLetters:
		r.takeDeadLetter(d)
	case summaries:
		r.takeReport(d)
	case results:
		if d.Type == device.TypeGroup {
			r.takeReport(d)
			return
		}
		result, err := device.ParseResult(d.Body)
		if err != nil {
			r.t.Errorf("a result that is none: %v: %s", err, d.Body)
			return
		}
		r.results = append(r.results, Result{Result: result, Body: string(d.Body), Read: r.last})
		if result.State.Terminal() {
			r.ended[endKey(result.ID, result.Device)] = true
		}
	}
}

// takeReport records a report about a group. The caller has the lock.
func (r *reader) takeReport(d *amqp.Delivery) {
	report, err := device.ParseGroupReport(d.Body)
	if err != nil {
		r.t.Errorf("a report that is none: %v: %s", err, d.Body)
		return
	}
	r.reports = append(r.reports, GroupReport{report, r.last})
}

// takeDeadLetter records a command that the broker gave up. The caller has the lock.
func (r *reader) takeDeadLetter(d *amqp.Delivery) {
	c, err := device.ParseCommand(d.Body, d.MessageId)
	if err != nil {
		c.ID = d.MessageId // it is malformed
	}
	reason, _ := d.Headers["x-first-death-reason"].(string)
	r.dead = append(r.dead, DeadLetter{ID: c.ID, Device: c.Device, Reason: reason, Read: r.last})
	r.ended[endKey(c.ID, c.Device)] = true
}

// declareDeadLetters declares the queue for commands that the broker gives up.
func declareDeadLetters(t *testing.T, url string) {
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(deadLetters, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
}

// quietFor returns the time since the last message.
func (r *reader) quietFor() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.last)
}

// countEnded returns how many commands have a result or are poison.
func (r *reader) countEnded() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ended)
}

// online returns the devices that are online according to the events.
func (r *reader) online() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	return r.presence.Online(now, now)
}

// endKey returns the key of a command in ended.
func endKey(id, name string) string { return id + " " + name }
