package router

import (
	"context"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// BenchmarkHandler moves one message at a time from a topic through a handler to another topic. It
// does so in Watermill's Router and in a pipeline of the host. The additional allocations of the
// host are for lanes, replies and confirmed publishing.
func BenchmarkHandler(b *testing.B) {
	for _, c := range []struct {
		name  string
		start func(b *testing.B, in, out *fakeSystem) (stop func())
	}{
		{"watermill", handlerOfWatermill},
		{"host", handlerOfHost},
	} {
		b.Run(c.name, func(b *testing.B) {
			in, out := newSystem(16), newSystem(16)
			stop := c.start(b, in, out)
			<-in.send("d", "0").outcome
			b.ReportAllocs()
			for b.Loop() {
				<-in.send("d", "1").outcome
			}
			stop()
		})
	}
}

func handlerOfHost(b *testing.B, in, out *fakeSystem) func() {
	host, err := New(Config{
		Name: "host", Transports: []Transport{{Name: "in", Config: in}, {Name: "out", Config: out}},
		Pipelines: []Pipeline{{
			Name: "test", From: "in:commands", To: "out:results", Handler: Handler{Type: "func", Config: handlerFunc(echo)},
			DropErrors: true, Lanes: DefaultLanes, Batch: DefaultBatch,
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := host.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	return func() {
		if err := host.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	}
}

func handlerOfWatermill(b *testing.B, in, out *fakeSystem) func() {
	r := message.NewDefaultRouter(watermill.NopLogger{})
	sub, err := in.Subscriber(transports.Consumer{})
	if err != nil {
		b.Fatal(err)
	}
	pub, err := out.Publisher(transports.Producer{})
	if err != nil {
		b.Fatal(err)
	}
	r.AddHandler("test", "commands", transporttest.Stock(sub), "results", pub, echo)
	var work sync.WaitGroup
	work.Go(func() {
		if err := r.Run(context.Background()); err != nil {
			b.Error(err)
		}
	})
	<-r.Running()
	return func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
		work.Wait()
	}
}
