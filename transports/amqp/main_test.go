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
	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/pentrough/pentrough/transports"
)

// patience is how long something that must happen may take, quiet how long something that must not is waited for.
const (
	patience = 30 * time.Second
	quiet    = 200 * time.Millisecond
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// config returns the defaults with a broker.
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

// rig is a started transport with its log.
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

// prepare is start up to the start.
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

func (r *rig) subscribe(ctx context.Context, topic string) <-chan *message.Message {
	r.Helper()
	s, err := r.tr.Subscriber(transports.Consumer{Pipeline: "test"})
	if err != nil {
		r.Fatal(err)
	}
	out, err := s.Subscribe(ctx, topic)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

// publisher returns a pipeline's publisher to a topic.
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

// until waits for a condition.
func (r *rig) until(what string, holds func() bool) {
	r.Helper()
	until(r, what, holds)
}

func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// sick waits until a part isn't healthy for a reason that contains all words.
func (r *rig) sick(part string, words ...string) {
	r.Helper()
	r.until(fmt.Sprintf("%s is sick of %q", part, words), func() bool {
		err := r.health(part)
		if err == nil {
			return false
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				return false
			}
		}
		return true
	})
}

// well waits until a part is healthy.
func (r *rig) well(part string) {
	r.Helper()
	r.until(part+" is well", func() bool { return r.health(part) == nil })
}

func (r *rig) health(part string) error {
	for _, h := range r.tr.Health() {
		if h.Part == part {
			return h.Err
		}
	}
	return fmt.Errorf("there is no part %q", part)
}

func next(t testing.TB, out <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-out:
		if !ok {
			t.Fatal("the output is closed")
		}
		return msg
	case <-time.After(patience):
		t.Fatal("no message came")
	}
	return nil
}

func none(t testing.TB, out <-chan *message.Message) {
	t.Helper()
	select {
	case msg, ok := <-out:
		if !ok {
			t.Fatal("the output is closed")
		}
		t.Fatalf("received %q", msg.Payload)
	case <-time.After(quiet):
	}
}

func closed(t testing.TB, out <-chan *message.Message) {
	t.Helper()
	select {
	case msg, ok := <-out:
		if ok {
			t.Fatalf("received %q", msg.Payload)
		}
	case <-time.After(patience):
		t.Fatal("the output isn't closed")
	}
}

// isVoid waits for the end of a message's context.
func isVoid(t testing.TB, msg *message.Message) {
	t.Helper()
	select {
	case <-msg.Context().Done():
	case <-time.After(patience):
		t.Fatalf("message %q isn't void", msg.Payload)
	}
	if cause := context.Cause(msg.Context()); !errors.Is(cause, transports.ErrVoid) {
		t.Fatalf("message %q ended with %v", msg.Payload, cause)
	}
}

func outgoing(payload string) *message.Message {
	return message.NewMessage(uuid.NewString(), []byte(payload))
}

// peer is a plain AMQP client beside the transport.
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

// put sends persistent messages straight to a queue.
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

// has says whether a queue exists.
func (p *peer) has(queue string) bool {
	p.Helper()
	_, err := p.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		p.open()
	}
	return err == nil
}

// get takes one message out of a queue.
func (p *peer) get(queue string) amqp.Delivery {
	p.Helper()
	var d amqp.Delivery
	until(p, "queue "+queue+" has a message", func() bool {
		var ok bool
		var err error
		if d, ok, err = p.ch.Get(queue, true); err != nil {
			p.Fatal(err)
		}
		return ok
	})
	return d
}

// depth is how many messages a queue has that are ready.
func (p *peer) depth(queue string) int {
	p.Helper()
	q, err := p.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		p.Fatal(err)
	}
	return q.Messages
}

// lines is a log.
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

// count is how many lines have a text.
func (l *lines) count(text string) int { return strings.Count(l.String(), text) }
