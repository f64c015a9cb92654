package router

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
	_ "github.com/pentrough/pentrough/transports/amqp"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// TestUniversalPubSub runs Watermill's suite for Pub/Subs over a real broker, through the lanes
// and the router's publisher. The suite waits 15 to 45 s for its messages. A busy machine needs
// longer for 10,000 messages, so the test sends a hundred, and makes the window smaller by the
// same factor.
func TestUniversalPubSub(t *testing.T) {
	url := testenv.Broker(t).VHost(t)
	features := tests.Features{Persistent: true, ForceShort: true}
	tests.TestPubSub(t, features, func(t *testing.T) (message.Publisher, message.Subscriber) {
		return newPubSub(t, url, "")
	}, nil)
	t.Run("one key", func(t *testing.T) {
		ordered := tests.Features{Persistent: true, GuaranteedOrder: true, GuaranteedOrderWithSingleSubscriber: true, ForceShort: true}
		context := tests.TestContext{TestID: tests.NewTestID(), Features: ordered}
		tests.TestPublishSubscribeInOrder(t, context, func(t *testing.T) (message.Publisher, message.Subscriber) {
			return newPubSub(t, url, "one")
		})
	})
}

// pubSub is a broker behind lanes, without pipelines.
type pubSub struct {
	transport transports.Transport
	config    transports.Config
	key       string
	publisher *publisher
	metrics   *pipelineMetrics
	end       context.CancelCauseFunc
	life      context.Context

	mu      sync.Mutex
	intakes []*intake
}

func newPubSub(t *testing.T, url, key string) (message.Publisher, message.Subscriber) {
	t.Helper()
	kind, _ := plugin.Registered().Kind("transport")
	info, _ := kind.Lookup("amqp")
	config := info.New().(transports.Config)
	decoder := plugin.Decoder{Set: plugin.Registered()}
	decoder.Table("", map[string]any{"url": url, "prefetch": int64(10)}, config)
	transport, err := config.New(transports.Env{
		Name: "broker", Host: "suite", Logger: slog.New(slog.DiscardHandler), Now: time.Now, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := transport.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := newMetrics(prometheus.NewRegistry(), transports.Memory{})
	if err != nil {
		t.Fatal(err)
	}
	s := &pubSub{transport: transport, config: config, key: key, metrics: all.pipeline("suite")}
	s.life, s.end = context.WithCancelCause(context.Background())
	s.publisher = &publisher{
		pipeline: "suite", transports: map[string]transports.Transport{"broker": transport}, log: slog.New(slog.DiscardHandler),
		metrics: s.metrics, life: s.life, destinations: map[transports.TopicRef]*destination{},
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := transport.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return suitePublisher{s}, suiteStock{transporttest.Stock(suiteSubscriber{s}), suiteSubscriber{s}}
}

type suitePublisher struct{ *pubSub }

func (p suitePublisher) Publish(topic string, msgs ...*message.Message) error {
	return p.publisher.sendUntilConfirmed(p.life, transports.TopicRef("broker:"+topic), msgs)
}

func (p suitePublisher) Close() error { return p.publisher.Close() }

type suiteSubscriber struct{ *pubSub }

// suiteStock is the stock subscriber, which can also declare a queue.
type suiteStock struct {
	message.Subscriber
	own suiteSubscriber
}

// SubscribeInitialize declares the queue, as publishing to it would.
func (s suiteStock) SubscribeInitialize(topic string) error {
	ctx, cancel := context.WithCancel(context.Background())
	done, err := s.own.Subscribe(ctx, topic, func(d *transports.Delivery) { d.Settle(nil) })
	cancel()
	if err == nil {
		<-done
	}
	return err
}

// Subscribe passes on the deliveries that the lanes start.
func (s suiteSubscriber) Subscribe(ctx context.Context, topic string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	traits, err := s.config.Topic(topic, transports.Consume)
	if err != nil {
		return nil, err
	}
	in := newIntake(&intake{
		topic: topic, source: traits,
		describe: func(msg *message.Message) (handlers.Description, error) {
			// A header has the metadata key header.NAME, and the suite looks for NAME.
			msg.Metadata.Set("test", msg.Metadata.Get(transports.HeaderPrefix+"test"))
			if s.key != "" {
				return handlers.Description{Key: s.key}, nil
			}
			return handlers.Description{Key: msg.UUID}, nil
		},
		open: func(func(bool)) (transports.Subscriber, error) {
			return s.transport.Subscriber(transports.Consumer{Pipeline: "suite"})
		},
		log: slog.New(slog.DiscardHandler), metrics: s.metrics, life: s.life,
	}, newLanes(traits.Window, DefaultLanes, false))
	in.pause.maxInterval = time.Millisecond // the suite nacks where a pipeline would pause
	out, err := in.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.intakes = append(s.intakes, in)
	s.mu.Unlock()
	context.AfterFunc(ctx, func() {
		in.stop()
		<-in.drained
		_ = in.Close()
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for msg := range out {
			in.startMore()
			r := runOf(msg)
			take(&transports.Delivery{
				UUID: msg.UUID, Payload: msg.Payload, Metadata: msg.Metadata, Context: r.life,
				Settle: func(o *transports.Outcome) { in.settleRun(r, o != nil) },
			})
		}
	}()
	return done, nil
}

func (s suiteSubscriber) Close() error {
	s.end(errStopped)
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, in := range s.intakes {
		errs = append(errs, in.Close())
	}
	return errors.Join(errs...)
}
