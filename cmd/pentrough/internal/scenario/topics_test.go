package scenario

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// traits are of a topic.
type traits transports.Topic

func (t traits) Topic(string, transports.Use) (transports.Topic, error) {
	return transports.Topic(t), nil
}
func (t traits) New(transports.Env) (transports.Transport, error) { return nil, nil }
func fakeOf(t transports.Topic) *topics {
	return newTopics(traits(t), "broker", newRecord())
}

func TestFakeIsATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Config: func(*testing.T) transports.Config { return fakeOf(transports.Topic{Window: 20, Broker: true}) },
		Topic:  "orders",
		Put: func(t *testing.T, tr transports.Transport, payloads ...string) {
			t.Helper()
			for _, payload := range payloads {
				tr.(*topics).put("orders", "", message.NewMessage("", []byte(payload)), nil)
			}
		},
		Redelivers: true,
		Returns:    true,
	})
}

func TestPipelinesOfOneStreamShareItsMessages(t *testing.T) {
	for _, c := range []struct {
		stream string
		want   int
	}{{"queue", 2}, {"", 4}} {
		fake := fakeOf(transports.Topic{Window: 1, Stream: c.stream})
		ctx, cancel := context.WithCancel(t.Context())
		var outs []<-chan *message.Message
		for _, name := range []string{"a", "b"} {
			sub, err := fake.Subscriber(transports.Consumer{Pipeline: name})
			if err != nil {
				t.Fatal(err)
			}
			out, err := transporttest.Stock(sub).Subscribe(ctx, "orders")
			if err != nil {
				t.Fatal(err)
			}
			outs = append(outs, out)
			defer sub.Close()
		}
		defer cancel()
		pub, err := fake.Publisher(transports.Producer{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := pub.Publish("orders", message.NewMessage("", []byte("x"))); err != nil {
				t.Fatal(err)
			}
		}
		for range c.want {
			select {
			case msg := <-outs[0]:
				msg.Ack()
			case msg := <-outs[1]:
				msg.Ack()
			}
		}
		if got := len(fake.record.left(topicSubject("broker:orders"))); got != 2 {
			t.Errorf("%d messages are recorded", got)
		}
		for _, consumer := range fake.consumers {
			if len(consumer.queue) > 0 {
				t.Errorf("stream %q: %d messages more than %d", c.stream, len(consumer.queue), c.want)
			}
		}
	}
}
