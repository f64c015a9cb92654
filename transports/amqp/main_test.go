package amqp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// quiet is how long a test waits for something that must not happen.
const quiet = 200 * time.Millisecond

func TestMain(m *testing.M) { await.Main(m) }

// config returns the defaults with the address of a broker.
func config(url string, change ...func(*Config)) *Config {
	c := defaults
	c.URL = transports.Secret(url)
	for _, f := range change {
		f(&c)
	}
	return &c
}

func topics(named map[string]TopicConfig) func(*Config) {
	return func(c *Config) { c.Topics = named }
}

// rig is a started transport and its log.
type rig struct {
	testing.TB
	tr  *transport
	log *lines
}

func start(t testing.TB, c *Config) *rig {
	t.Helper()
	r := prepare(t, c)
	r.begin()
	return r
}

// prepare returns a rig that isn't started yet.
func prepare(t testing.TB, c *Config) *rig {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatalf("the configuration is wrong: %v", err)
	}
	log := &lines{}
	tr, err := c.New(transports.Env{
		Name: "broker", Host: "host-1", Now: time.Now, Registerer: prometheus.NewRegistry(),
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{TB: t, tr: tr.(*transport), log: log}
	r.tr.closeTimeout = await.Patience // a test about it sets its own
	t.Cleanup(func() {
		r.close()
		if t.Failed() {
			t.Logf("the transport's log:\n%s", log)
		}
	})
	return r
}

func (r *rig) begin() {
	r.Helper()
	if err := r.tr.Start(r.Context()); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) close() {
	r.Helper()
	if err := r.tr.Close(context.Background()); err != nil {
		r.Errorf("closing: %v", err)
	}
}

// closeSilent closes the transport of a broker that doesn't answer. Only closeTimeout ends that
// Close, and all goroutines end soon after it.
func (r *rig) closeSilent() {
	r.Helper()
	if err := r.tr.Close(context.Background()); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		r.Errorf("closing: %v", err)
	}
	r.tr.closeTimeout = await.Patience
	r.close()
}

// closeAtOnce closes a transport that has nothing to wait for.
func (r *rig) closeAtOnce() {
	r.Helper()
	r.tr.closeTimeout = time.Hour
	ended := make(chan error, 1)
	go func() { ended <- r.tr.Close(context.Background()) }()
	if err := await.Receive(r, "the end of Close", ended); err != nil {
		r.Errorf("closing: %v", err)
	}
}

func (r *rig) subscribe(ctx context.Context, topic string) <-chan *message.Message {
	r.Helper()
	out, err := transporttest.Stock(r.subscriber()).Subscribe(ctx, topic)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

// subscriber returns the subscriber of a pipeline.
func (r *rig) subscriber() transports.Subscriber {
	r.Helper()
	s, err := r.tr.Subscriber(transports.Consumer{Pipeline: "test"})
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// take subscribes with a subscriber. It returns the deliveries through a channel that is larger
// than any window.
func (r *rig) take(ctx context.Context, s transports.Subscriber, topic string) (out <-chan *transports.Delivery, done <-chan struct{}) {
	r.Helper()
	const largest = 1000
	c := make(chan *transports.Delivery, largest)
	done, err := s.Subscribe(ctx, topic, func(d *transports.Delivery) { c <- d })
	if err != nil {
		r.Fatal(err)
	}
	return c, done
}

// origin returns a publisher that sends messages back to their exchange and routing key.
func (r *rig) origin() message.Publisher {
	r.Helper()
	p, err := r.tr.Publisher(transports.Producer{Use: transports.Return})
	if err != nil {
		r.Fatal(err)
	}
	return p
}

// publisher returns the publisher of a pipeline to a topic.
func (r *rig) publisher(topic string) message.Publisher {
	r.Helper()
	p, err := r.tr.Publisher(transports.Producer{Pipeline: "test", Topic: topic})
	if err != nil {
		r.Fatal(err)
	}
	return p
}

func (r *rig) publish(topic string, msgs ...*message.Message) error {
	r.Helper()
	p, err := r.tr.Publisher(transports.Producer{Pipeline: "test"})
	if err != nil {
		r.Fatal(err)
	}
	return p.Publish(topic, msgs...)
}

// until waits for a condition. If it fails, it shows the transport's health.
func (r *rig) until(what string, holds func() bool) {
	r.Helper()
	await.That(r, what, func() (any, bool) {
		ok := holds()
		return fmt.Sprintf("%+v", r.tr.Health()), ok
	})
}

// logs waits until the log has n lines with each text.
func (r *rig) logs(n int, texts ...string) {
	r.Helper()
	for _, text := range texts {
		await.That(r, fmt.Sprintf("the log has %d lines with %q", n, text), func() (any, bool) {
			return r.log, r.log.count(text) == n
		})
	}
}

// counts waits until a metric is n.
func (r *rig) counts(what string, n float64, c prometheus.Collector) {
	r.Helper()
	await.That(r, fmt.Sprintf("%s: %v", what, n), func() (any, bool) {
		got := testutil.ToFloat64(c)
		return got, got == n
	})
}

// publishes waits until publishing works, and returns the first error.
func (r *rig) publishes(topic, payload string) (first error) {
	r.Helper()
	await.That(r, "publishing to "+topic+" works", func() (any, bool) {
		err := r.publish(topic, outgoing(payload))
		if first == nil {
			first = err
		}
		return err, err == nil
	})
	return first
}

// sick waits until a part has an error with all the words.
func (r *rig) sick(part string, words ...string) {
	r.Helper()
	await.That(r, fmt.Sprintf("%s is sick of %q", part, words), func() (any, bool) {
		err := r.health(part)
		if err == nil {
			return "healthy", false
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				return err, false
			}
		}
		return err, true
	})
}

// well waits until a part has no error.
func (r *rig) well(part string) {
	r.Helper()
	await.That(r, part+" is well", func() (any, bool) {
		err := r.health(part)
		return err, err == nil
	})
}

func (r *rig) health(part string) error {
	for _, h := range r.tr.Health() {
		if h.Part == part {
			return h.Err
		}
	}
	return fmt.Errorf("there is no part %q", part)
}

func next[T any](t testing.TB, out <-chan T) T {
	t.Helper()
	return await.Receive(t, "a message", out)
}

func none[T any](t testing.TB, out <-chan T) {
	t.Helper()
	select {
	case got, ok := <-out:
		if !ok {
			t.Fatal("the output is closed")
		}
		t.Fatalf("received %+v", got)
	case <-time.After(quiet):
	}
}

func closed[T any](t testing.TB, out <-chan T) {
	t.Helper()
	await.Closed(t, "the output is closed", out)
}

// isVoid waits for the end of a delivery's context.
func isVoid(t testing.TB, ctx context.Context) {
	t.Helper()
	await.Closed(t, "the delivery is void", ctx.Done())
	if cause := context.Cause(ctx); !errors.Is(cause, transports.ErrVoid) {
		t.Fatalf("the delivery ended with %v", cause)
	}
}

func outgoing(payload string) *message.Message {
	return message.NewMessage(uuid.NewString(), []byte(payload))
}

// peer is a plain AMQP client, independent of the transport.
type peer struct {
	testing.TB
	conn *amqp.Connection
	ch   *amqp.Channel
}

func dial(t testing.TB, url string) *peer {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &peer{TB: t, conn: conn}
	p.open()
	return p
}

func (p *peer) open() {
	p.Helper()
	var err error
	if p.ch, err = p.conn.Channel(); err != nil {
		p.Fatal(err)
	}
}

// queue declares a durable queue with arguments.
func (p *peer) queue(name string, args amqp.Table) {
	p.Helper()
	if _, err := p.ch.QueueDeclare(name, true, false, false, false, args); err != nil {
		p.Fatal(err)
	}
}

// put sends persistent messages directly to a queue.
func (p *peer) put(queue string, payloads ...string) {
	p.Helper()
	for _, payload := range payloads {
		p.send(queue, amqp.Publishing{Body: []byte(payload), DeliveryMode: amqp.Persistent})
	}
}

func (p *peer) send(queue string, m amqp.Publishing) {
	p.Helper()
	if err := p.ch.Publish("", queue, false, false, m); err != nil {
		p.Fatal(err)
	}
}

// publish sends to an exchange and waits for the confirm.
func (p *peer) publish(exchange, key, payload string) {
	p.Helper()
	if err := p.ch.Confirm(false); err != nil {
		p.Fatal(err)
	}
	c, err := p.ch.PublishWithDeferredConfirm(exchange, key, true, false, amqp.Publishing{Body: []byte(payload), DeliveryMode: amqp.Persistent})
	if err != nil {
		p.Fatal(err)
	}
	if !c.Wait() {
		p.Fatalf("the broker didn't take %q", payload)
	}
}

// has reports whether a queue exists.
func (p *peer) has(queue string) bool {
	p.Helper()
	_, err := p.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		p.open()
	}
	return err == nil
}

// get takes one message from a queue.
func (p *peer) get(queue string) amqp.Delivery {
	p.Helper()
	var d amqp.Delivery
	await.That(p, "queue "+queue+" has a message", func() (any, bool) {
		var ok bool
		var err error
		if d, ok, err = p.ch.Get(queue, true); err != nil {
			p.Fatal(err)
		}
		return "it is empty", ok
	})
	return d
}

// consumed waits until a queue has n consumers.
func (p *peer) consumed(queue string, n int) {
	p.Helper()
	await.That(p, fmt.Sprintf("queue %s has %d consumers", queue, n), func() (any, bool) {
		got := p.consumers(queue)
		return got, got == n
	})
}

// holds waits until a queue has n ready messages.
func (p *peer) holds(queue string, n int) {
	p.Helper()
	await.That(p, fmt.Sprintf("queue %s has %d messages", queue, n), func() (any, bool) {
		got := p.depth(queue)
		return got, got == n
	})
}

// depth returns the number of ready messages of a queue.
func (p *peer) depth(queue string) int {
	p.Helper()
	q, err := p.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		p.Fatal(err)
	}
	return q.Messages
}

// lines is a log that tests can read.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// count returns how many lines have a text.
func (l *lines) count(text string) int { return strings.Count(l.String(), text) }
